-- Each change of a row, written by a trigger: replayed, it must give the table.
CREATE TABLE journal (seq bigint GENERATED ALWAYS AS IDENTITY, key bigint, content jsonb);
CREATE FUNCTION journal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO journal (key) VALUES (OLD.id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO journal (key, content) VALUES (NEW.id, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
