"""What each verb calls, one module a group. Thin: reads options, calls a room, prints. Never decides."""
