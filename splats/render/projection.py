"""Projection of 3D Gaussians to 2D Gaussians on the screen (EWA splatting), gsplat's convention.

The covariance is never formed in 3D: with M = R(q) diag(s) and Mc = W M (W: world to camera), the
screen covariance is F F^T with F = J Mc [2, 3], which is positive semi-definite by construction.
Its determinant is |F0 x F1|^2, a sum of squares, so needles do not lose it to cancellation.

Vocabulary: N Gaussians; u = x/z and v = y/z; J Jacobian of the camera at the mean; conic (a, b, c)
the inverse of the screen covariance [[a, b], [b, c]]; extent the half width and half height of the
box around the ellipse on which alpha falls to 1/255.

Sources: Zwicker et al., EWA splatting, 2002; Kerbl et al. 2023; gsplat's reference functions for
the frustum clamp, the opacity-aware extent and the fisheye Jacobian; Mip-Splatting section 4.2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from splats.render.camera import Camera
from splats.render.unit_vectors import unit_vectors

MAX_SIGMAS = 3.33  # exp(-3.33^2 / 2) = 1/255.8: beyond it no opacity reaches the alpha threshold.
ALPHA_THRESHOLD = 1.0 / 255.0
# Its square, 2.5e-5, is the bound of INRIA's program: the root has an infinite slope at 0, where a
# Gaussian has no area on the screen.
MIN_COMPENSATION = 0.005
FRUSTUM_MARGIN = 0.3  # Fraction of the half image by which the Jacobian's (u, v) may leave it.
# The smallest radius of the fisheye, which divides by it; far below a pixel.
FISHEYE_EPS = 1e-7


class Projected(NamedTuple):
    """Gaussians on the screen; the rows of culled ones are finite and meaningless."""

    means2d: jax.Array  # [N, 2] pixels.
    conics: jax.Array  # [N, 3] (a, b, c), 1/pixel^2.
    depths: jax.Array  # [N] camera z.
    compensations: jax.Array  # [N] sqrt(det(cov) / det(cov + eps2d I)).
    extents: jax.Array  # [N, 2] pixels, not differentiated; 0 where culled.
    radii: jax.Array  # [N, 2] int32, extents rounded up; 0 where culled.
    visible: jax.Array  # [N] bool.


def rotation_matrices(quats: jax.Array) -> jax.Array:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (w, x, y, z) of any length.

    The quaternion 0 gives the identity with zero gradient.
    """
    unit = unit_vectors(quats)
    w, x, y, z = (unit[:, i] for i in range(4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def project(
    means: jax.Array,
    quats: jax.Array,
    scales: jax.Array,
    camera: Camera,
    *,
    width: int,
    height: int,
    opacities: jax.Array | None = None,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    antialiased: bool = False,
    camera_model: str = "pinhole",
) -> Projected:
    """Projects Gaussians to the screen.

    Args:
      means: [N, 3] world.
      quats: [N, 4] wxyz, any length.
      scales: [N, 3] standard deviations, world units (not logarithms).
      camera: one camera.
      width: image width in pixels.
      height: image height in pixels.
      opacities: [N] in [0, 1]; when given, extents shrink to where alpha is 1/255 and Gaussians
        below 1/255 are culled; when absent the extent is 3.33 standard deviations.
      near: smallest camera z that is kept.
      far: largest camera z that is kept.
      eps2d: low-pass filter, pixels squared.
      antialiased: judge extents by the opacity after compensation.
      camera_model: one of `splats.render.camera.CAMERA_MODELS`.
    """
    rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    points = _apply(rotation, means) + translation[None, :]
    depths = points[:, 2]
    in_range = (depths > near) & (depths < far)
    # Culled points get a harmless depth, so that no inf meets a zero cotangent.
    points = jnp.where(in_range[:, None], points, jnp.array([[0.0, 0.0, 1.0]], points.dtype))
    # M = R diag(s): column k of each matrix is the k-th axis of the ellipsoid, of its length.
    factors = rotation_matrices(quats) * scales[:, None, :]
    factors = jnp.stack([_apply_row(rotation[i], factors) for i in range(3)], axis=1)
    lens = {"pinhole": _pinhole, "ortho": _ortho, "fisheye": _fisheye}[camera_model]
    means2d, row_x, row_y = lens(points, factors, camera, width, height)

    cov_xx = jnp.sum(row_x * row_x, axis=-1) + eps2d
    cov_yy = jnp.sum(row_y * row_y, axis=-1) + eps2d
    cov_xy = jnp.sum(row_x * row_y, axis=-1)
    # det(F F^T) = |F0 x F1|^2: as cov_xx cov_yy - cov_xy^2 a needle would lose all its digits.
    normal = jnp.cross(row_x, row_y)
    det_before = jnp.sum(normal * normal, axis=-1)
    # det(F F^T + eps I) from the same pieces; cov_xx and cov_yy have the filter in them already.
    det = det_before + eps2d * (cov_xx + cov_yy - eps2d)
    # The inverse of a symmetric 2 x 2 matrix; det is at least eps2d^2, so that it always exists.
    conics = jnp.stack([cov_yy, -cov_xy, cov_xx], axis=-1) / det[:, None]
    compensations = jnp.sqrt(jnp.maximum(det_before / det, MIN_COMPENSATION**2))

    extents, visible = _extents(
        means2d, cov_xx, cov_yy, opacities, compensations if antialiased else None, width, height
    )
    visible &= in_range
    extents = jnp.where(visible[:, None], extents, 0.0)
    return Projected(means2d, conics, depths, compensations, extents, _ceil_int(extents), visible)


def _apply(matrix: jax.Array, vectors: jax.Array) -> jax.Array:
    """matrix [3, 3] times vectors [N, 3], in full precision on every platform."""
    return jnp.einsum("ij,nj->ni", matrix, vectors, precision=jax.lax.Precision.HIGHEST)


def _apply_row(row: jax.Array, factors: jax.Array) -> jax.Array:
    """row [3] times factors [N, 3, 3] -> [N, 3]."""
    return row[0] * factors[:, 0, :] + row[1] * factors[:, 1, :] + row[2] * factors[:, 2, :]


def _ceil_int(extents: jax.Array) -> jax.Array:
    """Rounds up to int32, saturating far above any image size."""
    return jnp.ceil(jnp.minimum(extents, 1e6)).astype(jnp.int32)


def _pinhole(points, factors, camera, width, height):
    """Means [N, 2] and the rows F0, F1 [N, 3]; the Jacobian is taken inside a widened frustum."""
    inverse_z = 1.0 / points[:, 2]
    u, v = points[:, 0] * inverse_z, points[:, 1] * inverse_z
    # Far outside of the image the linearization has no meaning, and a Gaussian there would smear
    # over all of it: the slope is taken at the nearest point of the widened frustum instead.
    margin_u = FRUSTUM_MARGIN * 0.5 * width / camera.fx
    margin_v = FRUSTUM_MARGIN * 0.5 * height / camera.fy
    clamped_u = jnp.clip(
        u, -(camera.cx / camera.fx + margin_u), (width - camera.cx) / camera.fx + margin_u
    )
    clamped_v = jnp.clip(
        v, -(camera.cy / camera.fy + margin_v), (height - camera.cy) / camera.fy + margin_v
    )
    scale_x, scale_y = camera.fx * inverse_z, camera.fy * inverse_z
    row_x = scale_x[:, None] * (factors[:, 0] - clamped_u[:, None] * factors[:, 2])
    row_y = scale_y[:, None] * (factors[:, 1] - clamped_v[:, None] * factors[:, 2])
    means2d = jnp.stack([camera.fx * u + camera.cx, camera.fy * v + camera.cy], axis=-1)
    return means2d, row_x, row_y


def _ortho(points, factors, camera, width, height):
    """As `_pinhole` for an orthographic camera; focal lengths are pixels per world unit."""
    del width, height
    means2d = jnp.stack(
        [camera.fx * points[:, 0] + camera.cx, camera.fy * points[:, 1] + camera.cy], axis=-1
    )
    return means2d, camera.fx * factors[:, 0], camera.fy * factors[:, 1]


def _fisheye(points, factors, camera, width, height):
    """As `_pinhole` for the equidistant fisheye: radius on the screen = f * angle to the axis."""
    del width, height
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    squared = x * x + y * y
    off_axis = squared > 0.0
    radius = jnp.where(off_axis, jnp.sqrt(jnp.where(off_axis, squared, 1.0)), 0.0) + FISHEYE_EPS
    angle = jnp.arctan2(radius, z + FISHEYE_EPS)
    means2d = jnp.stack(
        [
            camera.fx * x * angle / radius + camera.cx,
            camera.fy * y * angle / radius + camera.cy,
        ],
        axis=-1,
    )
    # Derivative of (x, y) * angle / radius: along the radius it is z/(r^2 + z^2), across it
    # angle/radius; the small constant keeps it regular on the axis.
    x2, y2 = x * x + FISHEYE_EPS, y * y
    r2 = x2 + y2
    inverse_norm = 1.0 / (r2 + z * z)
    along = z * inverse_norm / r2
    across = jnp.arctan2(radius, z) / radius / r2
    mixed = x * y * (along - across)
    jacobian_x = (x2 * along + y2 * across, mixed, -x * inverse_norm)
    jacobian_y = (mixed, y2 * along + x2 * across, -y * inverse_norm)
    row_x = camera.fx * sum(j[:, None] * factors[:, i] for i, j in enumerate(jacobian_x))
    row_y = camera.fy * sum(j[:, None] * factors[:, i] for i, j in enumerate(jacobian_y))
    return means2d, row_x, row_y


def _extents(means2d, cov_xx, cov_yy, opacities, compensations, width, height):
    """Half sizes [N, 2] of the box where alpha >= 1/255, and whether it touches the image."""
    visible = jnp.ones(cov_xx.shape, bool)
    level = jnp.full_like(cov_xx, MAX_SIGMAS**2)
    if opacities is not None:
        peak = opacities if compensations is None else opacities * compensations
        visible &= peak >= ALPHA_THRESHOLD
        level = jnp.minimum(level, extent_level(peak))
    extents = jnp.sqrt(level[:, None] * jnp.stack([cov_xx, cov_yy], axis=-1))
    # Rounded up as in gsplat, so that both draw the same Gaussians at the border of the image.
    radii = jnp.ceil(extents)
    limits = jnp.array([[width, height]], means2d.dtype)
    inside = (means2d + radii > 0) & (means2d - radii < limits)
    visible &= jnp.all(inside, axis=-1)
    # Extents only decide which tiles are visited: their derivative is not that of the image.
    return jax.lax.stop_gradient(extents), visible


def extent_level(opacities: jax.Array) -> jax.Array:
    """2 ln(255 o) [N]: the squared Mahalanobis radius at which alpha is 1/255, at least 0."""
    return 2.0 * jnp.log(jnp.maximum(opacities * 255.0, 1.0))
