"""Door 2: a pipeline is an ordered list of step objects that share one context object."""
