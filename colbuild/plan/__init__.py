"""From a spec to a plan: shapes, the chain, the steps that build it, their keys, and what each is going to do."""
