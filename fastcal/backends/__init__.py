"""Which implementation runs: reference | cpu (| cuda | triton), and why the others do not."""
