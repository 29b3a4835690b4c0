"""The funnel (DESIGN section 3): what one repository goes through, from snapshot to verdict."""
