/* What nobody asked for: time, crashes, broken streams, duplicates, rollbacks; and what people ask for. */

byte breaks = BREAKS;
byte worker_crashes = WORKER_CRASHES;
byte master_crashes = MASTER_CRASHES;
byte duplicates = DUPLICATES;
byte rollbacks = ROLLBACKS;
byte cancels = CANCELS;
byte requeues = REQUEUES;
byte cuts = CUTS;
bit was_saved;

inline copy(target, source) {
  target.state = source.state; target.epoch = source.epoch; target.token = source.token;
  target.worker = source.worker; target.instance = source.instance; target.cancelling = source.cancelling;
  target.attempts = source.attempts; target.losses = source.losses; target.ended_token = source.ended_token;
  target.reaped_token = source.reaped_token; target.registered = source.registered; target.left = source.left;
  target.passed = source.passed; target.holder = source.holder; target.need = source.need;
  target.given = source.given; target.last = source.last; target.accepted = source.accepted;
  target.answered = source.answered
}

inline crash(w) {
  worker_crashes--;
  break_stream(w);
  workers[w].alive = 0;
  workers[w].left_over = workers[w].doing;
  workers[w].doing = 0;
  workers[w].stopping = 0;
  workers[w].saved = 0;
  workers[w].announce = 0;
  workers[w].sent = 0;
  workers[w].draining = 0
}

/* worker/holdings.py, recover: the run that the process before died under is reported as lost */
inline restart(w) {
  workers[w].alive = 1;
  workers[w].process++;
  if
  :: workers[w].left_over && !workers[w].kept ->
    workers[w].doing = workers[w].left_over; keep(w, LOSS)
  :: else
  fi;
  workers[w].left_over = 0
}

proctype Environment() {
  mtype kind;
  byte w, lease;
  do
  /* Time passes whether a master lives or not. Masters that live tick at once; beyond that it is an outage. */
  :: atomic { s.left > 0 && s.passed < PASSED_MAX -> s.passed++ }

  /* A stream breaks; one that breaks after a commit takes the reply with it. */
  :: atomic { breaks && workers[0].connected -> breaks--; break_stream(0) }
  :: atomic { breaks && workers[1].connected -> breaks--; break_stream(1) }
  /* It takes a message with it that hasn't arrived. */
  :: atomic { breaks && nempty(up) ->
      breaks--;
      if
      FOR_ANY_MESSAGE(true, w = worker_of[lease])
      fi;
      break_stream(w); kind = 0; w = 0; lease = 0 }
  /* Session.close: what a master saw on it is cut to the grace, however late, whoever holds it by then. */
  :: atomic { cuts && A_MASTER_LIVES && s.state == LEASED && s.left > GRACE -> cuts--; cut(s.holder) }

  :: atomic { worker_crashes && workers[0].alive -> crash(0) }
  :: atomic { worker_crashes && workers[1].alive -> crash(1) }
  :: atomic { !workers[0].alive -> restart(0) }
  :: atomic { !workers[1].alive -> restart(1) }
  :: atomic { master_crashes && master_alive[0] -> master_crashes--; master_alive[0] = 0 }
  :: atomic { master_crashes && master_alive[1] -> master_crashes--; master_alive[1] = 0 }
  :: atomic { !master_alive[0] -> master_alive[0] = 1 }
  :: atomic { !master_alive[1] -> master_alive[1] = 1 }

  /* A request is carried out twice: sent again after a lost reply, or by a master whose store connection broke. */
  :: atomic { duplicates && nempty(up) && nfull(up) ->
      duplicates--;
      if
      FOR_ANY_MESSAGE(true, skip)
      fi;
      SEND kind, lease;
      SEND kind, lease;
      kind = 0; lease = 0 }

  /* The store is saved, and later goes back to that: a lost tail of the log, a failover, a backup. */
  :: atomic { rollbacks && !was_saved -> was_saved = 1; copy(old, s); SAY("save", 0, 0, 0, OK) }
  :: atomic { rollbacks && was_saved ->
      rollbacks--; copy(s, old); old.given = 0; was_saved = 0; s.passed = PASSED_MAX;
      SAY("rollback", 0, 0, 0, OK) }

  :: atomic { cancels && !ENDED(s.state) -> cancels--; cancel(ignored) }
  :: atomic { requeues && ENDED(s.state) -> requeues--; requeue(ignored) }
  od
}
