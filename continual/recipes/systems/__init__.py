"""The recipes, one file each: a module that declares a `RECIPE` is one."""
