"""What needs neither mocks nor an engine."""
