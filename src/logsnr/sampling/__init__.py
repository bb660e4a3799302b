"""From a trained model to samples, with many evaluations of the network or few."""
