"""What needs a GPU: `make test-gpu`. Without one every test here is skipped, and says so."""
