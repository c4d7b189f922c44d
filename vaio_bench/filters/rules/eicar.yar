// The EICAR anti-malware test string (https://www.eicar.org). A pattern with its signs escaped:
// this file itself does not hold the string.
rule eicar_test_string
{
    strings:
        $eicar = /X5O!P%@AP\[4\\PZX54\(P\^\)7CC\)7\}\$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!\$H\+H\*/
    condition:
        $eicar
}
