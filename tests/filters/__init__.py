"""End-to-end claims of the filters: what `vaio-bench replay` shows of each."""
