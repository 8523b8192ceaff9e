"""Differentiable rendering of 3D Gaussians in JAX."""

from splats.render.camera import Camera, RenderSettings
from splats.render.rasterize import rasterize
from splats.render.renderer import RenderOutput, render

__all__ = ["Camera", "RenderOutput", "RenderSettings", "rasterize", "render"]
