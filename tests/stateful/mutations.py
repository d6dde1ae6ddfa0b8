"""Ways to break the Lua scripts that the stateful machine must notice: each is a slip that somebody could make."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """One slip: ``before``, which stands in the scripts exactly once (in ``file``, if named), becomes ``after``."""

    name: str
    before: str
    after: str
    file: str = ""

    def apply(self, folder: Path) -> None:
        """Break the scripts in this folder.

        Raises:
            ValueError: The text doesn't stand there exactly once any more; the mutation has to follow the scripts.
        """
        pattern = f"**/{self.file}" if self.file else "**/*.lua"
        found = [path for path in sorted(folder.glob(pattern)) for _ in range(path.read_text().count(self.before))]
        if len(found) != 1:
            raise ValueError(
                f"mutation {self.name!r}: its text stands {len(found)} times in {self.file or 'the scripts'}"
            )
        found[0].write_text(found[0].read_text().replace(self.before, self.after))


FENCES = (
    Mutation("any token holds a lease", "return task.token == token", "return true"),
    Mutation("any state holds a lease", "if task.state ~= 'LEASED' then return false end", "", "leave.lua"),
    Mutation(
        "cut asks for no token", "if task[1] == 'LEASED' and task[2] == item.token then", "if task[1] == 'LEASED' then"
    ),
    Mutation(
        "a checkpoint asks for no token",
        "if not holds(task, item.token, item.worker) then",
        "if false then",
        "checkpoint.lua",
    ),
    Mutation(
        "a released token isn't remembered",
        "redis.call('HSET', key('task', item.id), 'ended_token', outcome_mark(item))",
        "",
        "release.lua",
    ),
    Mutation(
        "a failed token isn't remembered",
        "redis.call('HSET', key('task', item.id), 'ended_token', outcome_mark(item))",
        "",
        "fail.lua",
    ),
    Mutation(
        "a report under any lease that ended is taken",
        "return open and token ~= '' and token == task.reaped_token",
        "return open",
    ),
    Mutation(
        "a late failure is taken without its lease",
        "if task.state ~= 'LEASED' then task = readopt_to_end(item.id, task, item) end",
        "",
        "fail.lua",
    ),
    Mutation(
        "a late release is taken without its lease",
        "if task.state ~= 'LEASED' then task = readopt_to_end(item.id, task, item) end",
        "",
        "release.lua",
    ),
    Mutation(
        "a late report is refused", "return was_reaped(task, item.token) and task.worker == item.worker", "return false"
    ),
    Mutation(
        "an expiry that was undone can be undone again",
        "redis.call('HDEL', key('task', id), 'reaped_token', 'avoid')",
        "",
        "adopt.lua",
    ),
    Mutation("the token outlives the lease", "'state', 'QUEUED', 'token', ''", "'state', 'QUEUED'"),
    Mutation("the token outlives a backoff", "'state', 'SCHEDULED', 'token', ''", "'state', 'SCHEDULED'"),
    Mutation("the token outlives the end", "'state', state, 'token', '', 'ended'", "'state', state, 'ended'"),
    Mutation("the epoch stays", "local epoch = tonumber(t[1]) + 1", "local epoch = tonumber(t[1])"),
    Mutation("another success counts as the same", "task.ended_token == outcome_mark(item)", "true", "complete.lua"),
)
TIMES = (
    Mutation(
        "a lease never ends", "local expiry = int(clock + call.ttl)", "local expiry = int(clock + call.ttl * 1000)"
    ),
    Mutation("a renewal renews nothing", "redis.call('ZADD', key('leases'), expiry, item.id)", "", "renew.lua"),
    Mutation("cut lengthens", "'XX', 'LT', 'CH'", "'XX', 'CH'"),
    Mutation(
        "due leases stay",
        "redis.call('ZRANGEBYSCORE', key('leases'), '-inf', int(clock), 'LIMIT'",
        "redis.call('ZRANGEBYSCORE', key('leases'), '-inf', int(clock - 1), 'LIMIT'",
        "expire.lua",
    ),
    Mutation(
        "promoted too early",
        "'-inf', int(clock), 'LIMIT'",
        "'-inf', int(clock + 5000), 'LIMIT'",
        "promote.lua",
    ),
    Mutation("promoted out of no index", "redis.call('ZREM', key('scheduled'), id)", "", "promote.lua"),
    Mutation("the backoff is none", "elseif delay > 0 then", "elseif false then"),
    Mutation("a delay starts at nought", "int(lease_ms() + delay)", "int(delay)"),
)
BUDGETS = (
    Mutation("one attempt too many", "spent >= most", "spent > most", "fail.lua"),
    Mutation("one loss too many", "spent >= tonumber(task.max_losses)", "spent > tonumber(task.max_losses)"),
    Mutation(
        "expiry costs nothing",
        "redis.call('HINCRBY', key('task', id), 'losses', 1)",
        "redis.call('HINCRBY', key('task', id), 'losses', 0)",
    ),
    Mutation("a loss counts as an attempt", "loss = {'losses', 'max_losses'}", "loss = {'attempts', 'max_losses'}"),
    Mutation("what no retry can help is retried", "not item.retryable or ", ""),
    Mutation("readopt doesn't give the loss back", "'losses', -1)", "'losses', 0)"),
    Mutation("readopt leaves the loss's record", "redis.call('RPOP', key('attempts', id))", ""),
    Mutation(
        "requeue keeps the attempts",
        "'attempts', 0, 'losses', 0, 'ooms', 0, 'ended_token', ''",
        "'losses', 0, 'ooms', 0, 'ended_token', ''",
    ),
    Mutation(
        "requeue keeps the losses",
        "'attempts', 0, 'losses', 0, 'ooms', 0, 'ended_token', ''",
        "'attempts', 0, 'ooms', 0, 'ended_token', ''",
    ),
)
INDEXES = (
    Mutation(
        "a lease stays in its index", "redis.call('ZREM', key('leases'), id)\n    redis.call('DEL'", "redis.call('DEL'"
    ),
    Mutation(
        "an ended task stays in its index", "redis.call('ZREM', key('ended', task.search .. ':' .. state), id)", ""
    ),
    Mutation(
        "an end is in no index", "redis.call('ZADD', key('ended', task.search .. ':' .. state), int(now), id)", ""
    ),
    Mutation("a ready task stays", "redis.call('ZREM', ready_key(search, class), id)", ""),
    Mutation("a drained class stays", "redis.call('SREM', key('classes', search), class)", ""),
    Mutation("counts only rise", "if from ~= '' then redis.call('HINCRBY', search_key, 'n:' .. from, -1) end", ""),
    Mutation("claims aren't counted", "redis.call('HINCRBY', search_key, 'n:LEASED', s.taken)", ""),
    Mutation("claims leave the count of the queue", "redis.call('HINCRBY', search_key, 'n:QUEUED', -s.taken)", ""),
    Mutation("a key outlives its task", "redis.call('HDEL', key('keys', search), task[1])", ""),
    Mutation("a member outlives its task", "redis.call('ZREM', key('members', search), id)", ""),
    Mutation("a payload goes too early", "'payload-refs'), task[2], -1) <= 0", "'payload-refs'), task[2], -1) <= 1"),
)
SERVING = (
    Mutation("a paused search is served", "if s[1] ~= 'active' then return false end", ""),
    Mutation(
        "one above the cap",
        "if most > 0 and tonumber(s[3] or '0') >= most",
        "if most > 0 and tonumber(s[3] or '0') > most",
    ),
    Mutation(
        "one above the cap in a batch",
        "if s.most > 0 and s.leased >= s.most then",
        "if s.most > 0 and s.leased > s.most then",
    ),
    Mutation("a cap is never lifted", "if most > 0 then offer(search) end", ""),
    Mutation("the last comes first", "int(-priority * BAND + seq), id)", "int(-priority * BAND - seq), id)"),
    Mutation("priority is upside down", "int(-priority * BAND + seq), id)", "int(priority * BAND + seq), id)"),
    Mutation("a search's priority is upside down", "'%.3f', -priority * BAND + pass", "'%.3f', priority * BAND + pass"),
    Mutation("a new priority moves nobody", "offer_anew(call.name)", "offer(call.name)"),
    Mutation("weights don't count", "stride = 100 / tonumber(v[1] or '1')", "stride = 100"),
    Mutation("idling earns credit", "math.max(pass, present_pass(priority))", "pass"),
)
REST = (
    Mutation("cancel forgets the holder's", "redis.call('HSET', key('task', id), 'cancel', '1')", ""),
    Mutation(
        "a cancelled task is run again",
        "if task.cancel == '1' then\n    to_end(id, task, transition",
        "if false then\n    to_end(id, task, transition",
    ),
    Mutation("a release forgets a cancel", "if cancelled then\n      to_end", "if false then\n      to_end"),
    Mutation("an end keeps the wish to cancel", "'cancel', 'reaped_token')", "'reaped_token')"),
    Mutation("the worst result is the best", "tonumber(best) < fitness", "tonumber(best) > fitness"),
    Mutation("no event of a claim", "event(id, name, 'claim', 'LEASED', request.worker, epoch)", ""),
    Mutation("no event of a promotion", "event(id, task.search, transition, 'QUEUED', task.worker, task.epoch)", ""),
    Mutation("no record of a success", "record(id, task, 'success', now, item.record)", ""),
    Mutation("no record of an expiry", "record(id, task, 'expired', now)", ""),
    Mutation("only one checkpoint is kept", "local KEEP_LAST = 2", "local KEEP_LAST = 1"),
    Mutation(
        "the worst checkpoint is kept",
        "worth(decoded[best]) < worth(decoded[n])",
        "worth(decoded[best]) > worth(decoded[n])",
    ),
    Mutation("a checkpoint can be registered twice", "if gone == url then return true end", ""),
    Mutation("a reaped token outlives a claim", "'reaped_token', 'avoid') end", "'avoid') end", "claim.lua"),
)
COSTS = (
    Mutation("a run takes as long as its worker says", "said and math.min(said, span) or span", "said or span"),
    Mutation("what a checkpoint kept is wasted", "'wasted_ms:' .. cause, run - kept)", "'wasted_ms:' .. cause, run)"),
    Mutation(
        "an earlier lease's checkpoint counts", "if epoch == task.epoch and not dropped", "if epoch and not dropped"
    ),
    Mutation(
        "what is cancelled is kept", "if epoch == task.epoch and not dropped", "if epoch == task.epoch", "compute.lua"
    ),
    Mutation("what came back comes back again", "  lost.wasted = 0\n", ""),
    Mutation("a success counts what is saved twice", "'useful_ms', run - before)", "'useful_ms', run)"),
    Mutation("a refusal counts each time it is sent", "  lost.run = run\n  remember_lost(id, lost)\n", ""),
    Mutation("a silent worker worked on", "- math.max(0, clock - heard)", ""),
    Mutation("once cut, for ever disconnected", "if cut_to and tonumber(cut_to) == expiry then", "if cut_to then"),
    Mutation("an equal submission saves each time", "    redis.call('HDEL', key('task', id), 'worth')\n", ""),
    Mutation("a task waits from its promotion", "'promote', now - late)", "'promote', now)"),
    Mutation("a task waits from its submission", "tonumber(queued or submitted or '0')", "tonumber(submitted or '0')"),
)
MUTATIONS = (*FENCES, *TIMES, *BUDGETS, *INDEXES, *SERVING, *REST, *COSTS)
