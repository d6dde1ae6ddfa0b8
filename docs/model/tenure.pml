/* Tenure's protocol, for spin: see README.md beside this file. What varies between configurations is in checks.toml.
 *
 *   tenure.pml        this: what is counted, and the processes that are started
 *   store.pml         the store: one inline for each Lua script
 *   masters.pml       a master: what it does with the store for whom
 *   workers.pml       a worker: its supervisor, its executor
 *   environment.pml   time, crashes, breaks, duplicates, rollbacks, people
 */

/* Bounds; a configuration sets them by -D. Each fault may happen so many times, whenever it likes. */
#ifndef LEASES_MAX
#define LEASES_MAX 4         /* claims in all */
#endif
#ifndef STREAMS_MAX
#define STREAMS_MAX 4        /* of each worker: whoever doesn't read loses stream after stream, for ever */
#endif
#ifndef ATTEMPTS_MAX
#define ATTEMPTS_MAX 2
#endif
#ifndef LOSSES_MAX
#define LOSSES_MAX 2
#endif
#ifndef TTL
#define TTL 1                /* of a lease, in the greatest step that a tick adds */
#endif
#ifndef PASSED_MAX
#define PASSED_MAX 1         /* wall time between ticks, in the same unit; above CAP it is an outage */
#endif
#ifndef BREAKS
#define BREAKS 1             /* of streams */
#endif
#ifndef WORKER_CRASHES
#define WORKER_CRASHES 0
#endif
#ifndef MASTER_CRASHES
#define MASTER_CRASHES 0
#endif
#ifndef DUPLICATES
#define DUPLICATES 0
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef REQUEUES
#define REQUEUES 0
#endif
#ifndef DRAINS
#define DRAINS 0
#endif
#ifndef FAILURES
#define FAILURES 1           /* runs that don't succeed */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 0
#endif
#ifndef RENEWALS
#define RENEWALS 2           /* heartbeats in all */
#endif
#ifndef CUTS
#define CUTS 1               /* leases cut to the grace */
#endif
#define GRACE (TTL > 1 -> 1 : 0)
#define CAP 1
#define NOBODY 3
#ifdef SETTLE_BY_STREAM
#define GREETS_ON ON(w, stream)
#define SETTLES(w, lease) assert(!HAS(w, lease))
#else
#define GREETS_ON 1          /* the master may not have heard yet that the stream is gone */
#define SETTLES(w, lease) skip
#endif
#define FRESH_TOKEN leases   /* 128 random bits: never the same twice */

mtype = {
  SCHEDULED, QUEUED, LEASED, SUCCEEDED, FAILED, CANCELLED,                /* states */
  OK, DUPLICATE, STALE, LOST, FINISHED, OPEN, CANCEL, READOPTED, AHEAD,   /* verdicts */
  SUCCESS, FAILURE, LOSS, RELEASE, RENEWAL, CHECKPOINT,                   /* messages up */
  GRANT, VERDICT, REVOCATION, CANCELLATION                                /* messages down */
};

/* Scratch of the steps; zero outside of them. */
hidden byte n, added, waited, lease_was;
hidden mtype ignored;

#include "store.pml"
#include "workers.pml"
#include "masters.pml"
#include "environment.pml"

init {
  d_step {
    s.state = QUEUED;
    s.worker = NOBODY;
    master_alive[0] = 1;
    master_alive[1] = 1;
    workers[0].alive = 1;
    workers[1].alive = 1;
  }
  atomic {
    run Executor(0); run Executor(1);
    run Supervisor(0); run Supervisor(1);
    run Master(0); run Master(1);
    run Ticker(); run Reaper(); run Environment()
  }
}

/* Liveness, in a configuration where faults and heartbeats are finite: the task ends. */
ltl ends { <> ENDED(s.state) }
