"""Fields: signed distance, color and density as functions of a canonical point."""
