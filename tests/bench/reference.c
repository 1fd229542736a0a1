/*
 * What the benchmarks give Debian's mptcpd to run: plugins that count what they are told.
 *
 * "count" does nothing else; "join" also asks for one subflow from 10.0.2.1 per connection.  The
 * counters are a file that the benchmark reads while mptcpd writes it, so that counting costs no
 * system call: BENCH_COUNTERS names it.  BENCH_BUFFER, if not 0, is what netlink sockets get to hold.
 * Source: mptcpd/plugin.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mptcpd/path_manager.h>
#include <mptcpd/plugin.h>

struct counters {
        uint64_t ready, events;
};

static struct counters nowhere, *counted = &nowhere;

static void connection(mptcpd_token_t token, struct sockaddr const *local,
                       struct sockaddr const *remote, bool server_side, struct mptcpd_pm *pm)
{
        (void) token, (void) local, (void) remote, (void) server_side, (void) pm;
        counted->events++;
}

static void join(mptcpd_token_t token, struct sockaddr const *local,
                 struct sockaddr const *remote, bool server_side, struct mptcpd_pm *pm)
{
        struct sockaddr_in from = *(struct sockaddr_in const *) local;

        (void) server_side;
        counted->events++;
        from.sin_addr.s_addr = inet_addr("10.0.2.1");
        mptcpd_pm_add_subflow(pm, token, 1, 0, (struct sockaddr *) &from, remote, false);
}

static void closed(mptcpd_token_t token, struct mptcpd_pm *pm)
{
        (void) token, (void) pm;
        counted->events++;
}

static void subflow(mptcpd_token_t token, struct sockaddr const *local,
                    struct sockaddr const *remote, bool backup, struct mptcpd_pm *pm)
{
        (void) token, (void) local, (void) remote, (void) backup, (void) pm;
        counted->events++;
}

static void address(struct mptcpd_interface const *interface, struct sockaddr const *address,
                    struct mptcpd_pm *pm)
{
        (void) interface, (void) address, (void) pm;
        counted->events++;
}

static void ready(struct mptcpd_pm *pm, void *data)
{
        char const *const buffer = getenv("BENCH_BUFFER");
        int const size = buffer ? atoi(buffer) : 0;

        (void) pm, (void) data;
        for (int fd = 0; size && fd < 64; fd++) {
                int domain = 0;
                socklen_t length = sizeof domain;

                if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) && domain == AF_NETLINK)
                        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        }
        counted->ready = 1;
}

#define HANDLERS(established)                                                                   \
        {                                                                                       \
                .new_connection = connection, .connection_established = established,            \
                .connection_closed = closed, .new_subflow = subflow, .subflow_closed = subflow, \
                .new_local_address = address, .delete_local_address = address                   \
        }

static struct mptcpd_plugin_ops const counting = HANDLERS(connection), joining = HANDLERS(join);
static struct mptcpd_pm_ops const readiness = {.ready = ready};

/* Only the one that decides is registered: mptcpd tells all of the network. */
static int start(struct mptcpd_pm *pm)
{
        char const *const path = getenv("BENCH_COUNTERS"), *const name = getenv("BENCH_PLUGIN");
        int const file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        if (!name || file < 0)
                return -1;
        counted = mmap(NULL, sizeof *counted, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (counted == MAP_FAILED || !mptcpd_pm_register_ops(pm, &readiness, NULL))
                return -1;
        return mptcpd_plugin_register_ops(name, *name == 'j' ? &joining : &counting) ? 0 : -1;
}

static void stop(struct mptcpd_pm *pm)
{
        (void) pm;
}

MPTCPD_PLUGIN_DEFINE(bench, "Counts", MPTCPD_PLUGIN_PRIORITY_DEFAULT, start, stop)
