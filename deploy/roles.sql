-- The roles of PostgreSQL and the database, for a superuser's psql. The passwords come from environment variables.
--
--   coupons_owner  owns the database and the schema; only `coupons migrate` connects as it (MIGRATE_DATABASE_URL)
--   coupons        every other process (DATABASE_URL); it owns nothing, `coupons migrate` grants it what it needs
--
-- Neither is a superuser. A second run sets the passwords and creates what is missing.
\set ON_ERROR_STOP on
\getenv owner_password DATABASE_OWNER_PASSWORD
\getenv password DATABASE_PASSWORD

SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY['coupons_owner', 'coupons']) AS role
WHERE role NOT IN (SELECT rolname FROM pg_roles) \gexec

ALTER ROLE coupons_owner LOGIN PASSWORD :'owner_password';
ALTER ROLE coupons LOGIN PASSWORD :'password';

SELECT 'CREATE DATABASE coupons OWNER coupons_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'coupons') \gexec
