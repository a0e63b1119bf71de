"""What is said of results: evidence, tests, claims, tables and figures."""
