/* A worker with one slot. Supervisor and executor are two processes, as in worker/. A worker that is paused (SIGSTOP, a
 * suspended machine) is one that takes no step for a while: every interleaving has that.
 */

typedef Worker {
  bit alive;
  byte process;       /* instance id: how often it was started */
  bit connected;      /* it believes in its stream */
  byte stream;        /* the number of that stream */
  bit wants;          /* the master knows of a free slot */
  bit draining;
  byte doing;         /* the lease that is carried out; 0: none */
  bit stopping;       /* the run was told to stop and to hand back: cancelled, or drained */
  bit saved;          /* the run has saved its checkpoint */
  byte announce;      /* the lease of a checkpoint that is saved and not announced on this stream */
  byte kept;          /* spool: the lease whose outcome has no verdict; 0: none */
  mtype kept_kind;
  bit sent;           /* that outcome was sent on this stream */
  byte left_over;     /* on disk: the lease under which the process before died */
}

Worker workers[2];
bit master_alive[2];

chan up = [3] of { mtype, byte };                           /* kind, lease; to any master */
chan hellos = [2] of { byte, byte, byte, byte, byte };      /* worker, stream, process, run, kept */
chan down_0 = [2] of { mtype, byte };                       /* kind, lease; on the present stream of worker 0 */
chan down_1 = [2] of { mtype, byte };

byte failures = FAILURES;
byte drains = DRAINS;
byte checkpoints = CHECKPOINTS;
byte renewals = RENEWALS;

/* Messages of one stream are carried out in order, those of old streams whenever a slow master gets to them, so in all in
 * any order. For liveness each is got to at last: first come, first served. */
#ifdef LIVENESS
#define SEND up!
#define FOR_ANY_MESSAGE(condition, action) :: condition && nempty(up) -> up?kind, lease; action
#else
#define SEND up!!
#define FOR_LEASE(condition, action, k, l) :: condition && up??[k, l] -> up??k, l; kind = k; lease = l; action
/* Only as many as there can be: the verifier takes long to compile. */
#if LEASES_MAX <= 2
#define FOR_KIND(condition, action, k) FOR_LEASE(condition, action, k, 1) FOR_LEASE(condition, action, k, 2)
#else
#define FOR_KIND(condition, action, k) \
  FOR_LEASE(condition, action, k, 1) FOR_LEASE(condition, action, k, 2) \
  FOR_LEASE(condition, action, k, 3) FOR_LEASE(condition, action, k, 4)
#endif
#define FOR_ANY_MESSAGE(condition, action) \
  FOR_KIND(condition, action, SUCCESS) FOR_KIND(condition, action, FAILURE) FOR_KIND(condition, action, LOSS) \
  FOR_KIND(condition, action, RELEASE) FOR_KIND(condition, action, RENEWAL) FOR_KIND(condition, action, CHECKPOINT)
#endif

#define A_MASTER_LIVES (master_alive[0] || master_alive[1])

/* The stream is gone: what was on its way down is lost; what was on its way up may have arrived. */
inline break_stream(w) {
  workers[w].connected = 0;
  workers[w].wants = 0;
  if
  :: w == 0 -> do :: down_0?_,_ :: empty(down_0) -> break od
  :: else -> do :: down_1?_,_ :: empty(down_1) -> break od
  fi
}

/* worker/runs.py, outcome_of; worker/spool.py, put */
inline keep(w, kind) {
  workers[w].kept = workers[w].doing;
  workers[w].kept_kind = kind;
  workers[w].sent = 0;
  workers[w].doing = 0;
  workers[w].stopping = 0;
  workers[w].saved = 0
}

proctype Executor(byte w) {
  do
  :: atomic { workers[w].alive && workers[w].doing && !workers[w].kept && !workers[w].stopping -> keep(w, SUCCESS) }
  :: atomic { workers[w].alive && workers[w].doing && !workers[w].kept && workers[w].stopping -> keep(w, RELEASE) }
  :: atomic { workers[w].alive && workers[w].doing && !workers[w].kept && failures ->
      failures--;
      if
      :: keep(w, FAILURE)
      :: keep(w, LOSS)
      fi }
  :: atomic { workers[w].alive && workers[w].doing && !workers[w].saved && checkpoints ->
      checkpoints--; workers[w].saved = 1; workers[w].announce = workers[w].doing }
  od
}

/* worker/session_stream.py, _take; worker/holdings.py */
inline take(w, kind, lease) {
  if
  :: kind == GRANT && !workers[w].doing && !workers[w].draining -> workers[w].doing = lease
  :: kind == GRANT && !workers[w].doing && workers[w].draining ->
    /* refused: handed back */
    if
    :: !workers[w].kept -> workers[w].doing = lease; keep(w, RELEASE)
    :: else
    fi
  :: kind == VERDICT && workers[w].kept == lease -> workers[w].kept = 0; workers[w].kept_kind = 0; workers[w].sent = 0
  :: kind == REVOCATION ->
    if
    :: workers[w].doing == lease -> workers[w].doing = 0; workers[w].stopping = 0; workers[w].saved = 0
    :: workers[w].kept == lease && workers[w].kept_kind != SUCCESS ->
      workers[w].kept = 0; workers[w].kept_kind = 0; workers[w].sent = 0
    :: else
    fi
  :: kind == CANCELLATION && workers[w].doing == lease -> workers[w].stopping = 1
  :: else
  fi
}

proctype Supervisor(byte w) {
  mtype kind;
  byte lease;
  do
  /* hello: every lease it holds, those included whose outcome has no verdict */
  :: atomic { workers[w].alive && !workers[w].connected && workers[w].stream < STREAMS_MAX && A_MASTER_LIVES && nfull(hellos) ->
      workers[w].connected = 1;
      workers[w].stream++;
      workers[w].sent = 0;
      hellos!workers[w].stream, w, workers[w].process, workers[w].doing, workers[w].kept }
  /* down */
  :: atomic { workers[w].alive && w == 0 && workers[w].connected && nempty(down_0) ->
      down_0?kind, lease; take(w, kind, lease); kind = 0; lease = 0 }
  :: atomic { workers[w].alive && w == 1 && workers[w].connected && nempty(down_1) ->
      down_1?kind, lease; take(w, kind, lease); kind = 0; lease = 0 }
  /* up */
  :: atomic { workers[w].alive && workers[w].connected && workers[w].announce && nfull(up) ->
      SEND CHECKPOINT, workers[w].announce; workers[w].announce = 0 }
  :: atomic { workers[w].alive && workers[w].connected && workers[w].kept && !workers[w].sent && nfull(up) ->
      SEND workers[w].kept_kind, workers[w].kept; workers[w].sent = 1 }
  :: atomic { workers[w].alive && workers[w].connected && !workers[w].doing && !workers[w].draining && !workers[w].wants ->
      workers[w].wants = 1 }
  :: atomic { workers[w].alive && workers[w].connected && (workers[w].doing || workers[w].kept) && renewals && nfull(up) ->
      renewals--;
      if
      :: workers[w].doing -> SEND RENEWAL, workers[w].doing
      :: workers[w].kept -> SEND RENEWAL, workers[w].kept
      fi }
  /* SIGTERM */
  :: atomic { workers[w].alive && drains && !workers[w].draining ->
      drains--;
      workers[w].draining = 1;
      workers[w].wants = 0;
      if
      :: workers[w].doing -> workers[w].stopping = 1
      :: else
      fi }
  od
}
