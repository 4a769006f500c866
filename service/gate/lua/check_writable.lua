-- Writes a key as the other scripts do, to show that the server accepts writes. ARGV: key, seconds until it expires.
redis.call('SET', ARGV[1], '1', 'EX', ARGV[2])
