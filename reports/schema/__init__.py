"""JSON Schemas generated from our types; `reports.schemas` writes them, a test keeps them current."""
