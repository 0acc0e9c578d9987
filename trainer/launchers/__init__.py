"""The door for an engine that starts jobs: one file, and one line here. launcher.name names the entry, or module:maker
outside.
"""

LAUNCHERS = {
    "batch": "trainer.launchers.batch.launcher:BatchLauncher",
    "kubernetes": "trainer.launchers.kubernetes.launcher:KubernetesLauncher",
    "local": "trainer.launchers.local:LocalLauncher",
    "slurm": "trainer.launchers.slurm.launcher:SlurmLauncher",
}
"""Name -> module:maker. A maker is called with a LauncherConfig and returns a trainer.launchers.base.Launcher. Imports
nothing, so that trainer.rules may read the names.
"""
