"""The population of Gaussians: slots, growth and where the rows lie."""
