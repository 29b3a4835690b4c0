"""The weights and the outputs: provenance, formats, matching, diff, edit kinds, lineage, attribution."""
