#!/bin/sh
# A dispatcher script of NetworkManager, see NetworkManager-dispatcher(8): the connections of this
# host use an interface from when it comes up, as a backup if its profile is called "mobile...", and
# leave it before it goes down, so that the peer does not go on sending into a dead path.
#
#     install -m 755 nm-dispatcher.sh /etc/NetworkManager/dispatcher.d/50-mptcp
#     ln -s ../50-mptcp /etc/NetworkManager/dispatcher.d/pre-down.d/50-mptcp
#
# NetworkManager waits for what is in pre-down.d.  The script is for connections under the userspace
# path manager, and leaves those alone that a policy decides for.  It needs busctl(1) and jq(1).
# SPDX-License-Identifier: BSD-3-Clause
set -u

interface=${DEVICE_IP_IFACE:-$1}

ask() { busctl --json=short --auto-start=no call org.mptcpd1 "$@"; }

choose() { # print the object paths that the filter $1 makes of what there is
    objects=$(ask /org/mptcpd1 org.freedesktop.DBus.ObjectManager GetManagedObjects) || {
        echo "mptcpd-dbus does not answer: see systemctl status mptcpd-dbus" >&2
        return
    }
    printf '%s\n' "$objects" | jq --raw-output --arg interface "$interface" '
        .data[0] | map_values(map_values(map_values(.data)))
        | map_values(.["org.mptcpd1.Subflow"] // empty) as $subflows
        | map_values(.["org.mptcpd1.Connection"] // empty
            | select(.PathManager == "userspace" and .Owner == "")) as $ours
        | [$subflows[] | select(.Interface == $interface).Connection] as $here
        | [$subflows[] | select(.Interface != $interface).Connection] as $elsewhere
        | '"$1"
}

case $2 in
up)
    case ${CONNECTION_ID-} in mobile*) backup=true ;; *) backup=false ;; esac
    choose '$ours | to_entries[] | select(.value.State == "established").key
        | select(IN($here[]) | not)' |
        while read -r connection; do # the answer to each SYN is not waited for
            ask "$connection" org.mptcpd1.Connection CreateSubflow 'sqa{sv}' '' 0 \
                3 Interface s "$interface" Backup b "$backup" Wait b false >/dev/null
        done
    ;;
pre-down | down)
    choose '$subflows | to_entries[] | select(.value.Interface == $interface
        and (.value.Connection | in($ours) and IN($elsewhere[]))).key' |
        while read -r subflow; do # announced, so that the peer gives the path up, too
            ask "$subflow" org.mptcpd1.Subflow Destroy 'a{sv}' 1 Announce b true
        done
    ;;
esac
