# Completion of mptcpctl(1) for fish; mptcpctl itself knows what can come next.
# SPDX-License-Identifier: BSD-3-Clause

complete -c mptcpctl -f -k \
    -a '(mptcpctl __complete (commandline -opc)[2..-1] (commandline -ct) 2> /dev/null)'
