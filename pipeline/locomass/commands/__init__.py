"""What each command does: the only place that knows the order of stages."""
