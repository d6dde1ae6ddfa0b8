/* The store: one task, and the Lua scripts of master/store/lua as inlines of the same names. Each inline is carried out
 * in one step, as Redis carries out a script. tests/model/test_replay.py replays random runs of it on the real scripts.
 *
 * A lease is known by its number, 1, 2, …, in the order of the claims: a ghost that no rollback takes back. What the
 * store compares is the token, TOKEN(number); tokens are random, so that is the number itself.
 */

typedef Store {
  mtype state;
  byte epoch;
  byte token;         /* 0: none */
  byte worker;        /* of the lease; NOBODY without one */
  byte instance;      /* the worker's process at the last claim, or at the readoption of a lease that the store had lost */
  bit cancelling;
  byte attempts;
  byte losses;
  byte ended_token;   /* of the outcome taken last */
  byte reaped_token;  /* of the lease that the reaper took last, until the next claim */
  byte registered;    /* the lease under which the newest registered checkpoint was written */
  byte left;          /* the lease's expiry minus the lease clock */
  byte passed;        /* wall time since the last tick */
  /* Ghosts: what the properties are said with. They are rolled back with the rest, but for `leases` below. */
  byte holder;        /* the lease that the store gave or gave back last; 0: the task isn't leased */
  byte need;          /* ticks that must come before `holder` may expire */
  byte given;         /* bit n: lease n was given in this history of the store */
  byte last;          /* the lease that was given, or given back, last in this history */
  bit accepted;       /* a result was taken */
  byte answered;      /* bit n: the outcome of lease n has had a verdict, whatever it was: its worker has forgotten it */
}

Store s;              /* the store as it is */
Store old;            /* as it was when it was saved; see rollback in environment.pml */

byte leases;          /* given since the beginning of time */
byte epoch_of[LEASES_MAX + 1];
byte token_of[LEASES_MAX + 1];
byte worker_of[LEASES_MAX + 1];

#define ENDED(state) (state == SUCCEEDED || state == FAILED || state == CANCELLED)
#define WAS_GIVEN(lease) ((s.given >> lease) & 1)
#define WAS_ANSWERED(lease) ((s.answered >> lease) & 1)
#define MOST(a, b) (a > b -> a : b)
#define LEAST(a, b) (a < b -> a : b)

/* The call, its answer, the task afterwards: for reading a trace, and for tests/model/test_replay.py. */
#define SAY(script, lease, who, detail, verdict) \
  printf("call "); printf(script); printf(" lease=%d worker=%d detail=%d verdict=%e ", lease, who, detail, verdict); \
  printf("state=%e epoch=%d token=%d holder=%d instance=%d cancel=%d attempts=%d losses=%d ended=%d reaped=%d ", \
    s.state, s.epoch, s.token, s.worker, s.instance, s.cancelling, s.attempts, s.losses, s.ended_token, s.reaped_token); \
  printf("checkpoint=%d left=%d\n", s.registered, s.left)

/* ---- lib/leave.lua ------------------------------------------------------------------------------------------- */

/* holds: whether a write under the lease's token comes from the present holder. */
#define HOLDS(lease) (s.state == LEASED && s.token == token_of[lease])

/* Every fenced write that is accepted passes here: it must be the present holder's, whatever its token says. */
#define NOT_STALE(lease) assert(s.holder == lease)

/* leave, and the writes of to_queue, to_schedule and to_end. I4: an ended task leaves its state only by requeue. */
inline goes_to(new_state) {
  assert(!ENDED(s.state));
  s.state = new_state;
  s.token = 0;
  s.worker = NOBODY;
  s.left = 0;
  s.holder = 0;
  s.need = 0;
  if
  :: ENDED(new_state) -> s.instance = 0; s.cancelling = 0; s.reaped_token = 0
  :: else
  fi;
  /* A task that FAILED keeps its checkpoints, for a requeue. */
  if
  :: new_state == SUCCEEDED || new_state == CANCELLED -> s.registered = 0
  :: else
  fi
}

inline after_failure(exhausted, delayed) {
  if
  :: s.cancelling -> goes_to(CANCELLED)
  :: !s.cancelling && (exhausted) -> goes_to(FAILED)
  :: !s.cancelling && !(exhausted) && (delayed) -> goes_to(SCHEDULED)
  :: else -> goes_to(QUEUED)
  fi
}

inline lease_for(lease) {
  s.holder = lease;
  s.last = lease;
  s.left = TTL;
  s.need = TTL
}

/* ---- lib/adopt.lua -------------------------------------------------------------------------------------------- */

/* was_reaped: the reaper took this lease last, and nobody was given the task since. */
#define REAPED(lease) (s.state != LEASED && token_of[lease] == s.reaped_token)
#define AHEAD_OF_STORE(lease) (epoch_of[lease] > s.epoch)

/* adopt; of a lease that was reaped undo_expiry, too */
inline adopt(lease, who, which) {
  /* Nobody was given the task since, or the store has gone back behind this lease's claim. */
  assert(s.last == lease || !WAS_GIVEN(lease));
  if
  :: REAPED(lease) -> assert(s.losses > 0); s.losses--
  :: else -> s.instance = which
  fi;
  s.state = LEASED;
  s.token = token_of[lease];
  s.epoch = MOST(epoch_of[lease], s.epoch);
  s.worker = who;
  s.reaped_token = 0;
  s.given = s.given | (1 << lease);
  lease_for(lease)
}

/* readopt_to_end: the report came later than the reaper */
inline readopt_if_late(lease, who) {
  if
  :: REAPED(lease) -> adopt(lease, who, 0)
  :: else
  fi
}

/* ---- claim.lua: the caller has seen that the task is QUEUED; sets `leases` to the lease it gives ------------- */
inline claim(who, which) {
  leases++;
  s.epoch = s.epoch + 1;
  epoch_of[leases] = s.epoch;
  token_of[leases] = FRESH_TOKEN;
  worker_of[leases] = who;
  /* I3: epochs rise within a history of the store, and no two leases ever have one token, not even across histories. */
  for (n : 1 .. leases - 1) {
    assert(!WAS_GIVEN(n) || epoch_of[n] < s.epoch);
    assert(token_of[n] != token_of[leases])
  }
  n = 0;
  s.state = LEASED;
  s.token = token_of[leases];
  s.worker = who;
  s.instance = which;
  s.reaped_token = 0;
  s.given = s.given | (1 << leases);
  lease_for(leases);
  SAY("claim", leases, who, 0, OK)
}

/* ---- complete.lua --------------------------------------------------------------------------------------------- */
inline complete(lease, who, verdict) {
  if
  :: ENDED(s.state) ->
    verdict = (s.state == SUCCEEDED && s.ended_token == token_of[lease] -> OK : DUPLICATE)
  :: else ->
    assert(!s.accepted);  /* I2 */
    s.accepted = 1;
    s.ended_token = token_of[lease];
    goes_to(SUCCEEDED);
    verdict = OK
  fi;
  SAY("complete", lease, who, 0, verdict)
}

/* ---- fail.lua: a failure burns an attempt, a loss a loss; `delayed`: the backoff came out above zero ----------- */
inline fail(lease, who, is_loss, delayed, verdict) {
  if
  :: HOLDS(lease) || REAPED(lease) ->
    readopt_if_late(lease, who);
    NOT_STALE(lease);
    s.ended_token = token_of[lease];
    if
    :: is_loss -> s.losses++; after_failure(s.losses >= LOSSES_MAX, 0)
    :: else -> s.attempts++; after_failure(s.attempts >= ATTEMPTS_MAX, delayed)
    fi;
    verdict = OK
  :: !HOLDS(lease) && !REAPED(lease) && s.ended_token == token_of[lease] -> verdict = OK
  :: else -> verdict = STALE
  fi;
  s.answered = s.answered | (1 << lease);
  SAY("fail", lease, who, is_loss + 2 * delayed, verdict)
}

/* ---- release.lua ---------------------------------------------------------------------------------------------- */
inline release(lease, who, verdict) {
  if
  :: HOLDS(lease) || REAPED(lease) ->
    readopt_if_late(lease, who);
    NOT_STALE(lease);
    s.ended_token = token_of[lease];
    if
    :: s.cancelling -> goes_to(CANCELLED)
    :: else -> goes_to(QUEUED)
    fi;
    verdict = OK
  :: !HOLDS(lease) && !REAPED(lease) && s.ended_token == token_of[lease] -> verdict = OK
  :: else -> verdict = STALE
  fi;
  s.answered = s.answered | (1 << lease);
  SAY("release", lease, who, 0, verdict)
}

/* ---- renew.lua: the progress that comes with it is a fenced write, too ------------------------------------------ */
inline renew(lease, who, verdict) {
  if
  :: s.state == QUEUED || s.state == SCHEDULED -> verdict = OPEN
  :: ENDED(s.state) -> verdict = FINISHED
  :: s.state == LEASED && !HOLDS(lease) -> verdict = (epoch_of[lease] > s.epoch -> OPEN : LOST)
  :: else ->
    NOT_STALE(lease);
    lease_for(lease);
    verdict = (s.cancelling -> CANCEL : OK)
  fi;
  SAY("renew", lease, who, 0, verdict)
}

/* ---- readopt.lua: of a task that is LEASED, too, if the holder is ahead of the store ----------------------------- */
inline readopt(lease, who, which, verdict) {
  if
  :: HOLDS(lease) -> verdict = READOPTED
  :: ENDED(s.state) -> verdict = FINISHED
  :: !HOLDS(lease) && !ENDED(s.state) && !REAPED(lease) && !AHEAD_OF_STORE(lease) -> verdict = LOST
  :: else ->
    assert(!REAPED(lease) || !WAS_ANSWERED(lease));  /* there is a run to go on, or a report of its end to come */
    verdict = (AHEAD_OF_STORE(lease) -> AHEAD : READOPTED);
    adopt(lease, who, which)
  fi;
  SAY("readopt", lease, who, 0, verdict)
}

/* ---- checkpoint.lua --------------------------------------------------------------------------------------------- */
inline checkpoint(lease, who, verdict) {
  if
  :: HOLDS(lease) ->
    NOT_STALE(lease);
    s.registered = lease;
    verdict = OK
  :: else -> verdict = STALE
  fi;
  SAY("checkpoint", lease, who, 0, verdict)
}

/* ---- cut.lua ---------------------------------------------------------------------------------------------------- */
inline cut(lease) {
  if
  :: HOLDS(lease) ->
    s.left = LEAST(s.left, GRACE);
    s.need = LEAST(s.need, GRACE)
  :: else
  fi;
  SAY("cut", lease, 0, 0, OK)
}

/* ---- tick.lua --------------------------------------------------------------------------------------------------- */
inline tick() {
  waited = s.passed;
  added = LEAST(s.passed, CAP);
  s.passed = 0;
  s.left = (s.left > added -> s.left - added : 0);
  s.need = (s.need > 0 -> s.need - 1 : 0);
  SAY("tick", 0, 0, waited, OK);
  added = 0;
  waited = 0
}

/* ---- expire.lua: takes the lease only if it ran out on the lease clock ------------------------------------------- */
#define DUE (s.left == 0)
inline expire() {
  if
  :: s.state == LEASED && DUE ->
    assert(s.need == 0);  /* the masters have ticked a whole lease's time since it was given or renewed */
    lease_was = s.holder;
    s.losses++;
    s.reaped_token = s.token;
    after_failure(s.losses >= LOSSES_MAX, 0);
    SAY("expire", lease_was, 0, 0, OK);
    lease_was = 0
  :: else
  fi
}

/* ---- promote.lua ------------------------------------------------------------------------------------------------- */
inline promote() {
  if
  :: s.state == SCHEDULED -> s.state = QUEUED; SAY("promote", 0, 0, 0, OK)
  :: else
  fi
}

/* ---- cancel.lua -------------------------------------------------------------------------------------------------- */
inline cancel(verdict) {
  if
  :: s.state == QUEUED || s.state == SCHEDULED -> goes_to(CANCELLED); verdict = OK
  :: s.state == LEASED -> s.cancelling = 1; verdict = CANCEL
  :: else -> verdict = FINISHED
  fi;
  SAY("cancel", 0, 0, 0, verdict)
}

/* ---- requeue.lua: the one way out of an end state, and none out of SUCCEEDED -------------------------------------- */
inline requeue(verdict) {
  if
  :: s.state == FAILED || s.state == CANCELLED ->
    s.state = QUEUED;
    s.attempts = 0;
    s.losses = 0;
    s.ended_token = 0;
    verdict = OK
  :: else -> verdict = FINISHED
  fi;
  SAY("requeue", 0, 0, 0, verdict)
}
