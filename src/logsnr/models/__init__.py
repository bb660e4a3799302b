"""Networks, the noise schedules that they are trained under, and the one place that calls them."""
