"""The networks of the prior: U-Net and VQ-VAE, on `[batch, depth, height, width, channel]`."""
