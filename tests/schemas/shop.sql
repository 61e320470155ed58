CREATE TYPE order_state AS ENUM ('cart', 'placed', 'paid', 'sent');
CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text);
CREATE TABLE products (id serial PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL CHECK (price >= 0));
CREATE TABLE orders (
    id serial PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers ON DELETE RESTRICT,
    state order_state NOT NULL DEFAULT 'cart',
    placed_at timestamptz,
    note text,
    CONSTRAINT placed_has_time CHECK (state = 'cart' OR placed_at IS NOT NULL)
);
CREATE INDEX orders_open ON orders (customer_id) WHERE state IN ('cart', 'placed');
CREATE INDEX orders_placed ON orders (placed_at DESC NULLS LAST);
CREATE TABLE order_items (
    order_id int NOT NULL REFERENCES orders ON DELETE CASCADE,
    line int NOT NULL,
    product_id int NOT NULL REFERENCES products,
    quantity int NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, line)
);
CREATE VIEW order_totals AS
    SELECT o.id, o.customer_id, o.state, coalesce(sum(i.quantity * p.price), 0) AS total
    FROM orders o LEFT JOIN order_items i ON i.order_id = o.id LEFT JOIN products p ON p.id = i.product_id
    GROUP BY o.id;
CREATE VIEW best_customers AS
    SELECT c.id, c.name, count(*) AS orders, max(t.id) AS last_order, sum(t.total) AS spent
    FROM customers c JOIN order_totals t ON t.customer_id = c.id GROUP BY c.id;
CREATE VIEW open_orders AS SELECT * FROM orders WHERE state IN ('cart', 'placed') WITH LOCAL CHECK OPTION;
CREATE FUNCTION spent_by(who int) RETURNS numeric LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT coalesce(sum(total), 0) FROM order_totals WHERE customer_id = who; END;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> 'cart' THEN NEW.placed_at := coalesce(NEW.placed_at, now()); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stamped BEFORE INSERT OR UPDATE OF state ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER journalled AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION journal();
COMMENT ON TABLE orders IS 'One row for each basket, paid or not';
COMMENT ON VIEW order_totals IS 'What an order costs';
INSERT INTO customers (email, name) SELECT 'c' || n || '@example.org', 'Customer ' || n FROM generate_series(1, 200) n;
INSERT INTO products (name, price) SELECT 'Product ' || n, n % 90 + 0.99 FROM generate_series(1, 100) n;
INSERT INTO orders (customer_id, state) SELECT n % 200 + 1, (enum_range(NULL::order_state))[n % 4 + 1] FROM generate_series(1, 2000) n;
INSERT INTO order_items SELECT n % 2000 + 1, n / 2000 + 1, n % 100 + 1, n % 5 + 1 FROM generate_series(0, 5999) n;
