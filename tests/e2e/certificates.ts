/**
 * Certificates for tests of encrypted links, made by openssl.
 *
 * @module
 */

import { project } from "./rayd.ts";

/** A directory with an authority's certificate, and one that it signed for this machine; `undefined` without openssl. */
export async function makeCertificates(): Promise<({ readonly path: string } & Disposable) | undefined> {
  const directory = project({ "leaf.ext": "subjectAltName = IP:127.0.0.1\nbasicConstraints = CA:FALSE\n" });
  const openssl = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command("openssl", { args, cwd: directory.path }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  try {
    for (const name of ["ca", "other"]) {
      const files = ["-keyout", `${name}.key`, "-out", `${name}.pem`];
      await openssl("req", "-x509", ...key, "-subj", `/CN=${name}`, "-days", "2", ...files);
    }
    await openssl("req", ...key, "-subj", "/CN=node", "-keyout", "node.key", "-out", "node.csr");
    const signing = [
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-extfile",
      "leaf.ext",
      "-days",
      "2",
    ];
    await openssl("x509", "-req", "-in", "node.csr", ...signing, "-out", "node.pem");
    return directory;
  } catch (error) {
    directory[Symbol.dispose]();
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("not tested: openssl, which makes the certificates, is not here");
    return undefined;
  }
}
