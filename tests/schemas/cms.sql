CREATE SCHEMA web;
CREATE TABLE authors (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE pages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug varchar(200) NOT NULL UNIQUE,
    title text NOT NULL,
    body text NOT NULL DEFAULT '',
    author_id int REFERENCES authors,
    published date,
    words tsvector
);
CREATE INDEX pages_words ON pages USING gin (words);
CREATE UNIQUE INDEX pages_lower_slug ON pages (lower(slug));
CREATE TRIGGER full_text BEFORE INSERT OR UPDATE OF title, body ON pages FOR EACH ROW
    EXECUTE FUNCTION tsvector_update_trigger(words, 'pg_catalog.english', title, body);
CREATE TABLE web.changes (at timestamptz DEFAULT now(), pages bigint);
CREATE FUNCTION web.count_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO web.changes (pages) SELECT count(*) FROM changed; RETURN NULL; END $$;
CREATE TRIGGER counted AFTER UPDATE ON pages REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION web.count_changes();
CREATE VIEW web.published WITH (security_barrier = true) AS
    SELECT p.id, p.slug, p.title, p.body, a.name AS author, p.published, p.words
    FROM pages p LEFT JOIN authors a ON a.id = p.author_id WHERE p.published IS NOT NULL;
CREATE VIEW web.front_page AS SELECT slug, title, left(body, 100) AS teaser FROM web.published ORDER BY published DESC, id LIMIT 20;
CREATE VIEW web.drafts AS SELECT id, slug, title, body FROM pages WHERE published IS NULL WITH CASCADED CHECK OPTION;
CREATE VIEW web.titles AS SELECT d.id, d.title, f.slug FROM web.drafts d FULL JOIN web.front_page f USING (slug);
CREATE MATERIALIZED VIEW web.vocabulary AS SELECT word, ndoc FROM ts_stat('SELECT words FROM public.pages') WITH NO DATA;
CREATE FUNCTION web.search(phrase text) RETURNS SETOF text LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT slug::text FROM web.published WHERE words @@ websearch_to_tsquery('pg_catalog.english', phrase); END;
CREATE RULE publish AS ON INSERT TO web.published DO INSTEAD
    INSERT INTO pages (slug, title, body, published) VALUES (NEW.slug, NEW.title, NEW.body, coalesce(NEW.published, '2026-01-01'));
COMMENT ON VIEW web.front_page IS 'what visitors see first';
COMMENT ON COLUMN web.published.author IS 'their name';
CREATE TRIGGER journalled AFTER INSERT OR UPDATE OR DELETE ON pages FOR EACH ROW EXECUTE FUNCTION journal();
INSERT INTO authors SELECT n, 'Author ' || n FROM generate_series(1, 20) n;
INSERT INTO pages (slug, title, body, author_id, published)
    SELECT 'page-' || n, 'Title of ' || n, 'Once upon a time there were ' || n || ' rabbits', n % 20 + 1,
           CASE WHEN n % 4 > 0 THEN date '2026-01-01' + n % 300 END FROM generate_series(1, 2000) n;
