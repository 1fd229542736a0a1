"""The names of our D-Bus contract and every bound of the bus edge, in one place.

Why there are bounds: any local user may talk to a system service, and the bus itself allows us only
128 pending replies, 512 match rules and 32 MiB per message (dbus-daemon(1), `<limit>`).
"""
# SPDX-License-Identifier: BSD-3-Clause

BUS_NAME = "org.mptcpd1"
ROOT = "/org/mptcpd1"
INTERFACE_PREFIX = "org.mptcpd1."
ERROR_PREFIX = "org.mptcpd1.Error."

MANAGER, CONNECTION, SUBFLOW, ADDRESS, ENDPOINT, PLUGIN = (
    INTERFACE_PREFIX + name
    for name in ("Manager", "Connection", "Subflow", "Address", "Endpoint", "Plugin")
)

CONTROL_OWN_CONNECTIONS = "org.mptcpd1.control-own-connections"
MANAGE_CONNECTIONS = "org.mptcpd1.manage-connections"
MANAGE_ENDPOINTS = "org.mptcpd1.manage-endpoints"
SET_PATH_MANAGER = "org.mptcpd1.set-path-manager"
MANAGE_PLUGINS = "org.mptcpd1.manage-plugins"
REGISTER_POLICY = "org.mptcpd1.register-policy"

# What one message may weigh: a call is judged by its header, before its body is read.
CALL_BYTES = 64 << 10
OTHER_BYTES = 8 << 20
MESSAGE_BYTES = 32 << 20  # what the bus takes from us: it cuts off who sends more

# Descriptors that a call may bring; how many of all callers we hold; threads that close them, and
# after how long another thread is set to work, or none may wait any more.
CALL_DESCRIPTORS = 1
HELD_DESCRIPTORS = 256
CLOSERS = 4
CLOSING_SECONDS = 0.005

# What may wait to be written; above it signals are dropped and reading rests.
QUEUE_BYTES = 8 << 20

# dbus-daemon stops reading from us when 127 MiB of ours wait in the queue of one subscriber that
# does not read.  A new connection ends that: to a full queue the bus adds nothing.
STALL_SECONDS = 2.0

# How long the reader may hold the loop, and how long one step of building a large answer.
SLICE_SECONDS = 0.002

# Calls per second and in a burst; the trusted are those of uid 0.  A user has more
# than a name, so that one program that floods does not silence the user's others.
NAME_RATE, NAME_BURST = 200, 400
UID_RATE, UID_BURST = 1000, 2000
TRUSTED_NAME_RATE, TRUSTED_NAME_BURST = 2000, 4000
TRUSTED_UID_RATE, TRUSTED_UID_BURST = 5000, 10000
BYTES_PER_TOKEN = 16 << 10  # a large answer costs its caller as much as many small ones
SECONDS_PER_TOKEN = 200e-6  # and so does one that takes us long
# All objects, or all paths, at once are megabytes, and who does not read them fills that queue: so
# many bytes a second, and in a burst, may the users other than root have of answers that are not
# small, each.
LARGE_RATE, LARGE_BURST = 1 << 20, 32 << 20
SMALL_BYTES = 4 << 10
REFUSAL_RATE, REFUSAL_BURST = 200, 2000  # so many refusals are answered, further ones are silent
MUTED_SECONDS = 0.05  # for so long a caller that was refused is refused without a closer look

# Calls whose handler is at work.
NAME_CALLS = 16
UID_CALLS = 64
TRUSTED_CALLS = 256

# What is remembered of callers, and calls that wait for the bus to tell the caller's uid.
PEERS = 1024
NAME_BACKLOG = 64
BACKLOG = 1024

# Calls above the rate that wait for their turn: who calls one after the other is only slowed down.
NAME_LATE = 8
UID_LATE = 64

# Policies on the bus.  That nobody reads is not told by the bus before it has swallowed 127 MiB, so
# some calls ask for an answer, of each policy one at a time: POLICIES of the pending replies.
POLICIES = 16
UID_POLICIES = 8
CALLS_PER_ANSWER = 32
ASK_SECONDS = 1.0  # and a call that comes so long after the last one that did
CALLS_UNANSWERED = 128  # then further ones are held back
CALLS_HELD = 16384  # ten thousand connections may close at once
CALLS_CROWDED = 1024  # and then it is told of no more connections that were there before
DEAF_SECONDS = 5.0  # for so long calls are held back before the policy is cut off
ANSWER_SECONDS = 30.0  # a call that asks for an answer has so long, as a plugin's handler has
BANNED_SECONDS = 10.0  # before a policy that was cut off may register again

# Callers of which each has shown the socket of the same connection; the newest are remembered.
PROVERS = 16

# Authorisation checks on their way; with POLICIES well below the pending replies of the bus.
CHECKS = 96
UID_CHECKS = 16
DIALOGUES = 32
UID_DIALOGUES = 4
CHECK_SECONDS = 25.0
DIALOGUE_SECONDS = 300.0

# So many commands of a user are logged in so long; those of more users are counted together.
AUDIT_LINES = 60
AUDIT_SECONDS = 60.0
AUDIT_USERS = 64

# How many of NetworkManager's devices are asked what they are.
DEVICES = 1024
