"""V-JEPA3D: self-supervised pretraining on 3D optical coherence tomography volumes."""
