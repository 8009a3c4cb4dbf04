"""Programs that the measurements run as processes of their own."""
