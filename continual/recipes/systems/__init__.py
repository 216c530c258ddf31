"""One module per recipe. Each declares a `RECIPE`."""
