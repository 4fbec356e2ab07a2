"""First hour: a recipe chosen for a folder of photographs."""
