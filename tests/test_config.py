"""The settings: what options and keys mean, which one wins, and what is said of a wrong one."""
# SPDX-License-Identifier: BSD-3-Clause

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus import __version__, config
from mptcpd_dbus.config import EX_USAGE, PLUGIN_DIR, Settings, read_settings
from mptcpd_dbus.config_file import KEYS, Section
from mptcpd_dbus.core.errors import ConfigurationError

LOGS = ("stderr", "syslog", "journal", "null")
# The C daemon's own file as it is shipped, and with its comments taken away.
MPTCPD_CONF = """\
# Copyright: somebody

[core]
# -------------------------------------------------------------------
# Default logging mechanism
log=stderr
plugin-dir={directory}
path-manager=addr_adv
# addr-flags=subflow
# notify-flags=existing,skip_link_local,skip_loopback
# load-plugins=addr_adv,sspi
"""


@pytest.fixture(autouse=True)
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place of the default file, where nothing is."""
    file = tmp_path / "default.conf"
    monkeypatch.setattr(config, "FILE", file)
    return file


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir(mode=0o755, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)
    return file


def _read(*arguments: str) -> dict[str, Any]:
    """Give what is not as it is by default."""
    settings = read_settings(arguments)
    assert settings.arguments == arguments
    return settings.model_dump(exclude_defaults=True, exclude={"arguments", "places"})


def _wrong(*arguments: str) -> str:
    with pytest.raises(ConfigurationError) as wrong:
        read_settings(arguments)
    return str(wrong.value)


# What it means


def test_without_files_and_arguments_the_defaults_count() -> None:
    assert read_settings([]) == Settings(
        bus="system",
        log="stderr",
        debug=False,
        netlink_buffer=64 << 20,
        plugin_dir=None,
        path_manager="",
        addr_flags=(),
        notify_flags=frozenset(),
        load_plugins=None,
        allow=(),
        deny=(),
        plugins={},
        arguments=(),
    )


OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    (["--bus", "unix:path=/x"], {"bus": "unix:path=/x"}),
    (["--bus=session"], {"bus": "session"}),
    (["--debug"], {"debug": True}),
    (["-d"], {"debug": True}),
    *((["--log", log], {"log": log}) for log in LOGS[1:]),
    *((["-l", log], {"log": log}) for log in LOGS[1:]),
    (["--netlink-buffer", "262144"], {"netlink_buffer": 262144}),
    (["--plugin-dir", "/x"], {"plugin_dir": Path("/x")}),
    (["--path-manager", "sspi"], {"path_manager": "sspi"}),
    (["--load-plugins", "b,a"], {"load_plugins": ("b", "a")}),
    (["--load-plugins", "b,a,b"], {"load_plugins": ("b", "a")}),
    (["--addr-flags", "subflow,backup"], {"addr_flags": ("subflow", "backup")}),
    (["--addr-flags", "subflow,fullmesh"], {"addr_flags": ("subflow", "fullmesh")}),
    (["--addr-flags", "signal, subflow"], {"addr_flags": ("signal", "subflow")}),
    (
        ["--notify-flags", "existing,skip_link_local,skip_loopback,check_route"],
        {"notify_flags": {"existing", "skip_link_local", "skip_loopback", "check_route"}},
    ),
]


@pytest.mark.parametrize(("given", "meant"), OPTIONS, ids=str)
def test_every_option_reaches_its_setting_long_or_short(
    given: list[str], meant: dict[str, Any]
) -> None:
    assert _read(*given) == meant


def test_the_place_to_log_to_can_be_the_default_one() -> None:
    for option in ("--log", "-l"):
        assert read_settings([option, "null", option, "stderr"]).log == "stderr"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--log=null", "-l", "syslog"], {"log": "syslog"}),
        (["-l", "syslog", "--log=null"], {"log": "null"}),
        (["--plugin-dir=/a", "--plugin-dir=/b"], {"plugin_dir": Path("/b")}),
        (["--path-manager=a", "--path-manager=b"], {"path_manager": "b"}),
        (["--load-plugins=a,b", "--load-plugins=c"], {"load_plugins": ("c",)}),
        (["--addr-flags=subflow", "--addr-flags=backup"], {"addr_flags": ("backup",)}),
        (["--addr-flags=subflow", "--addr-flags="], {}),
        (
            ["--notify-flags=existing", "--notify-flags=check_route"],
            {"notify_flags": {"check_route"}},
        ),
        (["--notify-flags=existing", "--notify-flags="], {}),
        (["-d", "--debug"], {"debug": True}),
    ],
)
def test_the_last_of_repeated_options_wins(given: list[str], meant: dict[str, Any]) -> None:
    assert _read(*given) == meant


def test_long_options_may_be_abbreviated() -> None:
    assert _read("--plug", "/x", "--load=a", "--deb") == {
        "plugin_dir": Path("/x"),
        "load_plugins": ("a",),
        "debug": True,
    }


PATH_MANAGERS = ("userspace", "kernel")
KEYS_IN_FILES: list[tuple[str, dict[str, Any]]] = [
    *((f"[core]\nlog={log}", {"log": log}) for log in LOGS[1:]),
    ("[core]\nplugin-dir=/x", {"plugin_dir": Path("/x")}),
    ("[core]\nplugin-dir=", {}),
    ("[core]\npath-manager=addr_adv", {"path_manager": "addr_adv"}),
    ("[core]\npath-manager=", {}),
    ("[core]\naddr-flags=subflow,signal", {"addr_flags": ("subflow", "signal")}),
    ("[core]\naddr-flags=", {}),
    ("[core]\nnotify-flags=existing, check_route", {"notify_flags": {"existing", "check_route"}}),
    ("[core]\nnotify-flags=", {}),
    ("[core]\nload-plugins=b, a", {"load_plugins": ("b", "a")}),
    ("[core]\nload-plugins=", {}),
    *((f"[core]\nkernel-path-manager={m}", {"kernel_path_manager": m}) for m in PATH_MANAGERS),
    ("[core]\nkernel-path-manager=", {}),
    ("[core]\nsettle-time=0", {"settle_time": 0}),
    ("[core]\nsignal-budget=0", {"signal_budget": 0}),
    ("[interfaces]\nallow=wlan*,name:eth?", {"allow": ("wlan*", "name:eth?")}),
    ("[interfaces]\nallow=", {}),
    ("[interfaces]\ndeny=lo", {"deny": ("lo",)}),
]


@pytest.mark.parametrize(("text", "meant"), KEYS_IN_FILES)
def test_every_key_reaches_its_setting(
    default_file: Path, text: str, meant: dict[str, Any]
) -> None:
    _written(default_file, text)

    assert _read() == meant


def test_no_key_was_left_out_above() -> None:
    tried = {text.partition("\n")[2].partition("=")[0] for text, _ in KEYS_IN_FILES}

    assert tried == {key for keys in KEYS.values() for key in keys}


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "docker0",
        "name:br-*",
        "name:eth[0-3]",
        "name:eth[!0]x",
        "kind:veth",
        "kind:*",
        "prefix:192.0.2.0/24",
        "prefix:192.0.2.1",
        "prefix:2001:db8::/32",
    ],
)
def test_patterns_of_interfaces_stay_as_they_are_written(default_file: Path, pattern: str) -> None:
    _written(default_file, f"[interfaces]\nallow=x, {pattern}\ndeny={pattern}")

    assert _read() == {"allow": ("x", pattern), "deny": (pattern,)}


def test_sections_of_plugins_are_handed_on_with_their_places(default_file: Path) -> None:
    _written(default_file, "[plugin sspi]\nmax-paths=2\npriority=low\n[plugin x]\n")

    assert read_settings([]).plugins == {
        "sspi": Section(
            "sspi",
            {"max-paths": "2", "priority": "low"},
            {"max-paths": f"{default_file}:2", "priority": f"{default_file}:3"},
        )
    }


# Which one wins


def test_a_drop_in_wins_over_the_file_key_by_key(default_file: Path) -> None:
    _written(default_file, "[core]\nlog=null\nload-plugins=a,b\n[plugin p]\nx=1\ny=1")
    directory = default_file.with_name("default.conf.d")
    _written(directory / "1.conf", "[core]\nload-plugins=c\n[plugin p]\ny=2")
    _written(directory / "2.conf", "[core]\naddr-flags=backup")

    settings = read_settings([])

    assert (settings.log, settings.load_plugins) == ("null", ("c",))
    assert settings.addr_flags == ("backup",)
    assert settings.plugins["p"].values == {"x": "1", "y": "2"}
    assert settings.plugins["p"].where("y") == f"{directory}/1.conf:4"


@pytest.mark.parametrize(("given", "meant"), OPTIONS, ids=str)
def test_the_command_line_wins_over_the_files_key_by_key(
    default_file: Path, given: list[str], meant: dict[str, Any]
) -> None:
    in_file = {
        "log": "stderr",
        "plugin-dir": "/file",
        "path-manager": "file",
        "addr-flags": "signal",
        "notify-flags": "skip_loopback",
        "load-plugins": "file",
    }
    _written(default_file, "[core]\n" + "".join(f"{k}={v}\n" for k, v in in_file.items()))
    from_file = _read()
    assert len(from_file) == 5  # "log" is as by default

    assert _read(*given) == from_file | meant


def test_empty_flags_on_the_command_line_switch_off_those_of_the_file(default_file: Path) -> None:
    _written(default_file, "[core]\naddr-flags=signal\nnotify-flags=existing")

    assert _read("--addr-flags=") == {"notify_flags": {"existing"}}
    assert _read("--notify-flags", "") == {"addr_flags": ("signal",)}


def test_another_file_replaces_the_default_one_and_its_drop_ins(
    default_file: Path, tmp_path: Path
) -> None:
    _written(default_file, "[core]\nlog=null\n")
    _written(tmp_path / "default.conf.d/a.conf", "[core]\naddr-flags=backup\n")
    other = _written(tmp_path / "other.conf", "[core]\npath-manager=other\n")
    _written(tmp_path / "other.conf.d/a.conf", "[core]\nnotify-flags=existing\n")

    assert _read() == {"log": "null", "addr_flags": ("backup",)}
    assert _read("--config", str(other)) == {
        "path_manager": "other",
        "notify_flags": {"existing"},
    }
    assert _read("--config=/nowhere", f"--config={other}")["path_manager"] == "other"


def test_another_file_must_be_there(tmp_path: Path) -> None:
    assert _wrong("--config", f"{tmp_path}/no.conf") == f"{tmp_path}/no.conf does not exist"


def test_the_same_arguments_read_again_what_the_files_say_now(default_file: Path) -> None:
    before = read_settings(["-d", "--log", "null"])
    _written(default_file, "[core]\nlog=syslog\naddr-flags=backup")

    after = read_settings(before.arguments)

    places = {"addr_flags": f"{default_file}:3"}
    assert after == before.model_copy(update={"addr_flags": ("backup",), "places": places})
    assert after.where("addr_flags") == f"{default_file}:3: addr-flags"
    assert after.where("log") == "--log"


# The C daemon's file


def test_the_file_of_the_c_daemon_works_as_it_is(tmp_path: Path) -> None:
    text = MPTCPD_CONF.format(directory=tmp_path)
    file = _written(tmp_path / "mptcpd.conf", text)
    assert _read("--config", str(file)) == {
        "plugin_dir": tmp_path,
        "path_manager": "addr_adv",
    }

    _written(file, text.replace("# addr-", "addr-").replace("# not", "not").replace("# lo", "lo"))
    assert _read("--config", str(file)) == {
        "plugin_dir": tmp_path,
        "path_manager": "addr_adv",
        "addr_flags": ("subflow",),
        "notify_flags": {"existing", "skip_link_local", "skip_loopback"},
        "load_plugins": ("addr_adv", "sspi"),
    }


def test_a_directory_of_c_plugins_is_answered_by_name(default_file: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for directory in (theirs, ours):
        _written(directory / "sspi.so", "")
    _written(ours / "sspi.py", "")

    _written(default_file, f"[core]\n\nplugin-dir={theirs}")
    said = _wrong()
    assert said.startswith(f"{default_file}:3: plugin-dir={theirs} has plugins of the C daemon")
    assert PLUGIN_DIR in said
    assert _wrong("--plugin-dir", str(theirs)).startswith(f"--plugin-dir={theirs} has plugins")

    assert _read("--plugin-dir", str(ours)) == {"plugin_dir": ours}
    _written(default_file, f"[core]\nplugin-dir={ours}")
    assert _read() == {"plugin_dir": ours}


# What is wrong


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("log=paper", "log='paper': Input should be 'stderr', 'syslog', 'journal' or 'null'"),
        ("log=", "log='': Input should be 'stderr'"),
        (
            "addr-flags=subflow,bogus",
            (
                "addr-flags='subflow,bogus': 'bogus': Input should be 'subflow', 'signal',"
                " 'backup' or 'fullmesh'"
            ),
        ),
        ("addr-flags=existing", "addr-flags='existing': 'existing': Input should be 'subflow'"),
        ("addr-flags=signal,fullmesh", "addr-flags='signal,fullmesh': the kernel takes signal or"),
        ("addr-flags=signal,", "addr-flags='signal,': a word is missing beside a comma"),
        ("addr-flags=subflow backup", "addr-flags='subflow backup': 'subflow backup': Input"),
        (
            "notify-flags=existing,Check_route",
            (
                "notify-flags='existing,Check_route': 'Check_route': Input should be 'existing',"
                " 'skip_link_local', 'skip_loopback' or 'check_route'"
            ),
        ),
        ("notify-flags=,", "notify-flags=',': a word is missing"),
        ("load-plugins=a,../b", "load-plugins='a,../b': '../b': a name has letters, digits"),
        ("load-plugins=a,,b", "load-plugins='a,,b': a word is missing"),
        ("load-plugins=sspi.py", "load-plugins='sspi.py': 'sspi.py': a name"),
        ("path-manager=a b", "path-manager='a b': a name has letters, digits and _ only"),
        ("path-manager=\u00fc", "path-manager='\u00fc': a name"),
    ],
)
def test_a_wrong_value_in_a_file_is_told_with_file_line_and_what_was_expected(
    default_file: Path, line: str, words: str
) -> None:
    _written(default_file, f"[core]\n# here it comes\n{line}\n")

    assert _wrong().startswith(f"{default_file}:3: {words}")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("prefix:192.0.2.0/33", "'192.0.2.0/33' does not appear to be an IPv4 or IPv6 network"),
        ("prefix:192.0.2.1/24", "192.0.2.1/24 has host bits set"),
        ("prefix:", "'' does not appear to be"),
        ("type:veth", "give name:GLOB or GLOB, kind:GLOB, or prefix:ADDRESS/LENGTH"),
        ("fe80::/10", "give name:GLOB"),
        ("name:", "a glob has no white space"),
        ("kind:", "a glob has"),
        ("192.0.2.0/24", "a glob has no white space, no / and no [ or ] alone"),
        ("eth 0", "a glob has"),
        ("eth[0", "a glob has"),
        ("eth0]", "a glob has"),
    ],
)
@pytest.mark.parametrize("key", KEYS["interfaces"])
def test_a_wrong_pattern_of_interfaces_is_told(
    default_file: Path, key: str, pattern: str, words: str
) -> None:
    _written(default_file, f"[interfaces]\n{key}=lo,{pattern}\n")

    said = _wrong()

    assert said.startswith(f"{default_file}:2: {key}='lo,{pattern}': '{pattern}': ")
    assert words in said


def test_a_wrong_value_is_told_also_where_another_replaces_it(
    default_file: Path, tmp_path: Path
) -> None:
    _written(default_file, "[core]\nlog=paper\nlog=null")
    _written(tmp_path / "default.conf.d/a.conf", "[core]\nlog=null")

    assert _wrong("--log=null").startswith(f"{default_file}:2: log='paper'")


def test_of_several_wrong_values_the_first_is_told(default_file: Path, tmp_path: Path) -> None:
    _written(default_file, "[core]\nlog=null\naddr-flags=x\nlog=paper")
    _written(tmp_path / "default.conf.d/a.conf", "[core]\nlog=wood")

    assert _wrong().startswith(f"{default_file}:3: addr-flags='x'")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--bus", "home"], "--bus='home': give system, session, or a D-Bus address"),
        (["--bus="], "--bus needs a value"),
        (["--log", "paper"], "--log='paper': Input should be 'stderr', 'syslog'"),
        (["-l", "paper"], "--log='paper': Input"),
        (["--log=paper", "--log=null"], "--log='paper': Input"),
        (["--log="], "--log needs a value"),
        (["--log"], "argument -l/--log: expected one argument"),
        (["--netlink-buffer", "12"], "--netlink-buffer='12': Input should be greater than"),
        (["--netlink-buffer", "much"], "--netlink-buffer='much': Input should be a valid integer"),
        (["--netlink-buffer="], "--netlink-buffer needs a value"),
        (["--plugin-dir="], "--plugin-dir needs a value"),
        (["--path-manager="], "--path-manager needs a value"),
        (["--path-manager=a/b"], "--path-manager='a/b': a name has letters"),
        (["--load-plugins="], "--load-plugins needs a value"),
        (["--load-plugins=,"], "--load-plugins=',': a word is missing"),
        (["--load-plugins=../a"], "--load-plugins='../a': '../a': a name has letters"),
        (["--addr-flags=loud"], "--addr-flags='loud': 'loud': Input should be 'subflow'"),
        (["--addr-flags=signal,fullmesh"], "--addr-flags='signal,fullmesh': the kernel takes"),
        (["--notify-flags=loud"], "--notify-flags='loud': 'loud': Input should be 'existing'"),
        (["--config="], "--config needs a value"),
        (["--lo", "null"], "ambiguous option: --lo could match"),
        (["--debug=yes"], "argument -d/--debug: ignored explicit argument 'yes'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(
    given: list[str], words: str, default_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _written(default_file, "[core]\nand the file is wrong, too")

    with pytest.raises(SystemExit) as ended:
        read_settings(given)

    said = capsys.readouterr().err
    assert ended.value.code == EX_USAGE
    assert said.startswith(f"mptcpd-dbus: {words}")
    assert "see mptcpd-dbus --help" in said
    assert said.count("\n") == 1


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(sorted(KEYS)))
def test_random_values_are_taken_or_refused(value: str, section: str) -> None:
    for key in KEYS[section]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(f"[{section}]\n{key}={value}".encode())
            file.flush()
            try:
                read_settings(["--config", file.name])
            except ConfigurationError as error:
                said = str(error)
            else:
                continue
        assert said.startswith(f"{file.name}:")
        assert "\n" not in said


# What it tells about itself


@pytest.mark.parametrize("option", ["--help", "-h", "-?"])
def test_help_names_every_option_and_every_exit_status(
    option: str, capsys: pytest.CaptureFixture[str], default_file: Path
) -> None:
    _written(default_file, "nonsense")

    with pytest.raises(SystemExit) as ended:
        read_settings([option])

    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for arguments, _ in OPTIONS:
        assert arguments[0].partition("=")[0] in said
    for words in ("--config FILE", "the default policy", "64 usage", "69 MPTCP", "78 conf"):
        assert words in said


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--version", f"mptcpd-dbus {__version__}\n"),
        ("-V", f"mptcpd-dbus {__version__}\n"),
        ("--usage", "usage: mptcpd-dbus [--config FILE]"),
    ],
)
def test_version_and_usage_are_told(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings([option])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(words)
