"""A real cache, found or started; clients of it; the rules on a server that is not ours."""
