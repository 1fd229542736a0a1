#!/bin/sh
# Prints every path of this host's MPTCP connections: token, ends, interface, backup, round trip.
#
#     paths.sh [INTERFACE]
#
# One call answers with the state of one moment; the round trip (in microseconds) is asked for each
# subflow afterwards, and one that has ended by then is left out.  It needs busctl(1) and jq(1).
# SPDX-License-Identifier: BSD-3-Clause
set -eu

ask() { busctl --json=short --auto-start=no call org.mptcpd1 "$@"; }

objects=$(ask /org/mptcpd1 org.freedesktop.DBus.ObjectManager GetManagedObjects) || {
    echo "paths.sh: mptcpd-dbus does not answer: see systemctl status mptcpd-dbus" >&2
    exit 1
}
printf '%s\n' "$objects" | jq --raw-output --arg interface "${1-}" '
    .data[0] as $all
    | $all | to_entries[] | .key as $path | .value["org.mptcpd1.Subflow"] // empty
    | map_values(.data)
    | select($interface == "" or .Interface == $interface)
    | $all[.Connection]["org.mptcpd1.Connection"].Token.data as $token
    | [$path, $token, "\(.LocalAddress) \(.LocalPort)", "\(.RemoteAddress) \(.RemotePort)",
       (if .Interface == "" then "-" else .Interface end),
       (if .Backup or .BackupRequested then "backup" else "-" end)]
    | @tsv
' | while IFS='	' read -r path token local remote device backup; do
    counters=$(ask "$path" org.mptcpd1.Subflow GetStatistics 2>/dev/null) || continue
    rtt=$(printf '%s\n' "$counters" | jq '.data[0].rtt')
    printf '%08x  %s -> %s  %s  %s  %s\n' "$token" "$local" "$remote" "$device" "$backup" "$rtt"
done
