"""Metrics of pictures beyond PSNR and SSIM."""
