-- primary: says that this server may be written to; a replica refuses it, since it isn't declared as one that only reads.
-- It follows scripts that only read: those run on a replica, too, and would tell what it has got so far.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the key of the script that it follows
-- Replies  1
return 1
