"""Tables, figures and one HTML page, and the comparison of losses they are made from."""
