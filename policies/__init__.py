"""What to do about it: one file a policy, each a pure `decide(view, state, ctx)`."""
