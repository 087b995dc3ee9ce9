"""Design and statistics of blinded reader studies: protocol in, tidy responses in, report out."""
