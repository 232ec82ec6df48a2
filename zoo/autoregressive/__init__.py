"""Models that write a datum one dimension after another: p(x) = Π_i p(x_i | x_<i)."""
