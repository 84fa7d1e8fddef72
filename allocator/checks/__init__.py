"""The numpy code that checks certificates, one kind one file; nothing here is shared with the solvers."""
