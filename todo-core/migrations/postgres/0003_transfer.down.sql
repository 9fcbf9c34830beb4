drop function "{schema}"."{table}_transfer"(text, text);
