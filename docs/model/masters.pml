/* A master holds no state that anybody relies on: between two scripts it may be paused for any time, or die. Messages are
 * for whichever master gets to them: a worker may be connected to either, and what one of them reads late is late.
 */

byte greeted[2];      /* the stream whose hello was dealt with: only then are tasks claimed for it */

#define CAN_CLAIM (s.state == QUEUED && leases < LEASES_MAX)
/* No two processes of workers have one instance id. */
#define INSTANCE(w, process) (2 * process + w + 1)
#define WAITS(w) (workers[w].wants && workers[w].connected && greeted[w] == workers[w].stream)
#define ON(w, number) (workers[w].connected && workers[w].stream == number)
/* lease is what worker w carries out, or is about to be told to. */
#define HAS(w, lease) (workers[w].doing == lease || (w == 0 && down_0??[GRANT, eval(lease)]) || (w == 1 && down_1??[GRANT, eval(lease)]))

/* What can't be written is lost, and with it the stream. */
inline tell(w, kind, lease) {
  if
  :: !workers[w].connected
  :: workers[w].connected && w == 0 && nfull(down_0) -> down_0!kind,lease
  :: workers[w].connected && w == 1 && nfull(down_1) -> down_1!kind,lease
  :: workers[w].connected && (w == 0 && full(down_0) || w == 1 && full(down_1)) -> break_stream(w)
  fi
}

/* master/rpc/renewals.py, revocations */
inline tell_renewed(w, verdict, lease) {
  if
  :: verdict == LOST || verdict == FINISHED -> tell(w, REVOCATION, lease)
  :: verdict == CANCEL -> tell(w, CANCELLATION, lease)
  :: else
  fi
}

proctype Master(byte m) {
  mtype kind, verdict;
  byte w, lease, stream, process, run_held, kept_held;

serve:
  atomic {
    kind = 0; verdict = 0; w = 0; lease = 0; stream = 0; process = 0; run_held = 0; kept_held = 0;
    if
    /* master/loops/matchmaker.py. The first claim is worker 0's: they are alike until then. */
    :: master_alive[m] && CAN_CLAIM && WAITS(0) -> w = 0; goto match
    :: master_alive[m] && CAN_CLAIM && WAITS(1) && leases > 0 -> w = 1; goto match
    FOR_ANY_MESSAGE(master_alive[m], w = worker_of[lease]; goto handle)
    :: master_alive[m] && nempty(hellos) -> hellos?stream, w, process, run_held, kept_held; goto greet
    fi;
  match:
    stream = workers[w].stream;
    workers[w].wants = 0;
    claim(w, INSTANCE(w, workers[w].process));
    lease = leases
  };
  /* Session._deliver: the claim is answered, the task not yet sent */
  atomic {
    if
    :: !master_alive[m] && ON(w, stream) -> break_stream(w)
    :: master_alive[m] && ON(w, stream) -> tell(w, GRANT, lease)
    :: !ON(w, stream)                            /* written to a stream that is dead: lost */
    :: !ON(w, stream) -> release(lease, w, ignored)  /* closed by then: given back */
    fi;
    goto serve
  };

handle:
  atomic {
    if
    :: kind == SUCCESS -> complete(lease, w, verdict); tell(w, VERDICT, lease); goto serve
    :: kind == FAILURE ->
      if
      :: true -> fail(lease, w, 0, 0, verdict)
      :: true -> fail(lease, w, 0, 1, verdict)
      fi;
      tell(w, VERDICT, lease); goto serve
    :: kind == LOSS -> fail(lease, w, 1, 0, verdict); tell(w, VERDICT, lease); goto serve
    :: kind == RELEASE -> release(lease, w, verdict); tell(w, VERDICT, lease); goto serve
    :: kind == CHECKPOINT ->
      checkpoint(lease, w, verdict);
      if
      :: verdict == STALE -> tell(w, REVOCATION, lease)
      :: else
      fi;
      goto serve
    :: kind == RENEWAL ->
      renew(lease, w, verdict);
      if
      :: verdict == OPEN
      :: else -> tell_renewed(w, verdict, lease); goto serve
      fi
    fi
  };
  /* TaskStore.renew_all: readopt is a script of its own, and anything may come between */
  atomic {
    if
    :: !master_alive[m] -> break_stream(w)
    /* The process that sent it may be an earlier one; no configuration has both crashes and rollbacks. */
    :: master_alive[m] -> readopt(lease, w, INSTANCE(w, workers[w].process), verdict); tell_renewed(w, verdict, lease)
    fi;
    goto serve
  };

greet:
  /* StreamLeases.settle: what the store says the worker holds and its hello doesn't name. */
  atomic {
    if
    :: !master_alive[m] || !ON(w, stream) ->
      if
      :: ON(w, stream) -> break_stream(w)
      :: else
      fi;
      goto serve                                   /* the call ended with its stream */
    :: master_alive[m] && GREETS_ON ->             /* the master hasn't heard of the stream's end yet */
      if
      :: s.state == LEASED && s.worker == w && s.holder != run_held && s.holder != kept_held ->
        lease = s.holder;
        if
        :: s.instance == INSTANCE(w, process) -> SETTLES(w, lease); release(lease, w, ignored)
        :: else -> fail(lease, w, 1, 0, ignored)
        fi;
        lease = 0
      :: else
      fi
    fi
  };
  /* Session._greet: then everything that it names is renewed */
  atomic {
    if
    :: !run_held
    :: run_held -> renew(run_held, w, verdict)
    fi;
    if
    :: run_held && verdict == OPEN -> readopt(run_held, w, INSTANCE(w, process), verdict)
    :: else
    fi;
    if
    :: run_held && ON(w, stream) -> tell_renewed(w, verdict, run_held)
    :: else
    fi
  };
  atomic {
    if
    :: !kept_held
    :: kept_held -> renew(kept_held, w, verdict)
    fi;
    if
    :: kept_held && verdict == OPEN -> readopt(kept_held, w, INSTANCE(w, process), verdict)
    :: else
    fi;
    if
    :: kept_held && ON(w, stream) -> tell_renewed(w, verdict, kept_held)
    :: else
    fi;
    if
    :: ON(w, stream) -> greeted[w] = stream
    :: else
    fi;
    goto serve
  }
}

/* master/loops/ticker.py. Ticks of two masters are ticks of one: the script counts the time since the last of any. */
proctype Ticker() {
  do
  :: atomic { A_MASTER_LIVES && s.passed > 0 && s.left > 0 -> tick() }
  od
}

proctype Reaper() {
  do
  :: atomic { A_MASTER_LIVES && s.state == LEASED && DUE -> expire() }
  :: atomic { A_MASTER_LIVES && s.state == SCHEDULED -> promote() }
  od
}
