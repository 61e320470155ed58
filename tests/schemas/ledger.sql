CREATE ROLE ledger_owner;
CREATE ROLE ledger_app;
CREATE ROLE ledger_auditor;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE accounts (
    tenant_id int REFERENCES tenants, id int, currency char(3) NOT NULL DEFAULT 'EUR', PRIMARY KEY (tenant_id, id)
);
CREATE TABLE entries (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 20) PRIMARY KEY,
    tenant_id int NOT NULL DEFAULT current_setting('app.tenant')::int,
    account_id int NOT NULL,
    amount numeric(18, 4) NOT NULL CONSTRAINT not_nothing CHECK (amount <> 0),
    memo text COLLATE "C",
    cents bigint GENERATED ALWAYS AS ((amount * 100)::bigint) STORED,
    booked timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, account_id) REFERENCES accounts MATCH FULL
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX entries_account ON entries (tenant_id, account_id) INCLUDE (amount);
CREATE STATISTICS entries_tenant_account (ndistinct, dependencies) ON tenant_id, account_id FROM entries;
ALTER TABLE entries OWNER TO ledger_owner;
ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_sees_own ON entries TO ledger_app
    USING (tenant_id = current_setting('app.tenant')::int) WITH CHECK (tenant_id = current_setting('app.tenant')::int);
CREATE POLICY small_only ON entries AS RESTRICTIVE FOR INSERT TO ledger_app WITH CHECK (abs(amount) < 1000000);
CREATE POLICY auditors_see_all ON entries FOR SELECT TO ledger_auditor USING (true);
GRANT SELECT, INSERT, UPDATE (memo, amount) ON entries TO ledger_app;
GRANT SELECT (id, tenant_id, amount) ON entries TO ledger_auditor;
GRANT SELECT ON accounts, tenants TO ledger_app;
CREATE VIEW balances WITH (security_invoker = true) AS
    SELECT tenant_id, account_id, sum(amount) AS balance FROM entries GROUP BY tenant_id, account_id;
CREATE VIEW totals WITH (security_barrier = true) AS SELECT tenant_id, sum(balance) AS total FROM balances GROUP BY tenant_id;
GRANT SELECT ON balances, totals TO ledger_app;
COMMENT ON POLICY tenant_sees_own ON entries IS 'each tenant''s own entries';
CREATE TRIGGER journalled AFTER INSERT OR UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION journal();
ALTER TABLE entries ENABLE ALWAYS TRIGGER journalled;
INSERT INTO tenants SELECT n, 'Tenant ' || n FROM generate_series(1, 5) n;
INSERT INTO accounts SELECT t, a FROM generate_series(1, 5) t, generate_series(1, 10) a;
INSERT INTO entries (tenant_id, account_id, amount, memo)
    SELECT n % 5 + 1, n % 10 + 1, n - 1000.5, 'entry ' || n FROM generate_series(1, 2000) n;
